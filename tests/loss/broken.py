"""Copies of modules that are broken on purpose."""

import importlib.util
from pathlib import Path
from types import ModuleType

__all__ = ["broken_copy"]


def broken_copy(module: ModuleType, before: str, after: str, folder: Path) -> ModuleType:
    """A module in whose source a text, which occurs once, is replaced; its file is written to a folder."""
    assert module.__file__ is not None
    source = Path(module.__file__).read_text()
    assert source.count(before) == 1
    name = f"broken_{Path(module.__file__).stem}"
    file = folder / f"{name}.py"
    file.write_text(source.replace(before, after))
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    broken = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(broken)
    return broken
