"""Technical English that every installation has: the docstrings of its Python packages.

Source files are parsed and never imported. Nothing is downloaded.
"""

import ast
import importlib.util
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from costbank.errors import InputNotFoundError
from costbank.files import write_atomically
from costbank.progress import Progress

__all__ = ["DEFAULT_PACKAGES", "gather_docstrings"]

DEFAULT_PACKAGES = ("numpy", "scipy", "torch", "gensim")

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def gather_docstrings(out: Path, packages: Sequence[str], progress: Progress) -> int:
    """Write every distinct docstring of some packages to `out`, each on one line, and return their number.

    Packages that are not installed are skipped.

    Raises:
        InputNotFoundError: none of the packages is installed.
        StorageError: the file cannot be written.
    """
    sources = [path for package in packages for path in _source_files(package)]
    if not sources:
        raise InputNotFoundError(
            f"none of the packages {', '.join(packages)} is installed", "pip install 'costbank[demo]'"
        )
    seen: dict[str, None] = {}
    with progress.step("gather docstrings", len(sources), "files") as step:
        for path in sources:
            seen.update(dict.fromkeys(_docstrings(path.read_bytes())))
            step.advance(1)
    write_atomically(out, "".join(f"{text}\n" for text in seen).encode())
    return len(seen)


def _source_files(package: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return []
    return sorted(Path(spec.submodule_search_locations[0]).rglob("*.py"))


def _docstrings(source: bytes) -> Iterator[str]:
    if b'"""' not in source and b"'''" not in source:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            tree = ast.parse(source)
    except (SyntaxError, ValueError):  # templates and test data that are not Python of this version
        return
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node, clean=False)):
            line = " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
            if line:
                yield line
