"""The contracts of import-linter also hold for imports by a string, which import-linter does not see."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
FOLDERS = {"costbank": ROOT / "costbank", "costbank_service": ROOT / "service/costbank_service",
           "costbank_cli": ROOT / "cli/costbank_cli"}  # fmt: skip
IMPORTERS = ("import_module", "__import__", "require", "find_spec")


def string_imports(source: str) -> Iterator[str]:
    """Our modules that a source file imports by name, as a string in a call."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            imported = node.args[0].value
            if name in IMPORTERS and isinstance(imported, str) and imported.split(".")[0] in FOLDERS:
                yield imported


def broken(importer: str, imported: str) -> list[str]:
    """The contracts that an import breaks."""
    broken = []
    for contract in CONTRACTS:
        if contract["type"] == "forbidden":
            if _within(importer, contract["source_modules"]) and _within(imported, contract["forbidden_modules"]):
                broken.append(contract["name"])
        elif contract["type"] == "layers":
            above, below = (_layer(module, contract["layers"]) for module in (importer, imported))
            if above is not None and below is not None and above > below:
                broken.append(contract["name"])
        elif contract["type"] == "protected":
            outside = not _within(importer, [*contract["protected_modules"], *contract["allowed_importers"]])
            if outside and _within(imported, contract["protected_modules"]):
                broken.append(contract["name"])
    return broken


def _within(module: str, names: list[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


def _layer(module: str, layers: list[str]) -> int | None:
    rooms = ([room.strip() for room in layer.split("|")] for layer in layers)
    return next((place for place, names in enumerate(rooms) if _within(module, names)), None)


def test_imports_by_a_string_keep_the_contracts():
    seen = []
    for package, folder in FOLDERS.items():
        for file in folder.rglob("*.py"):
            importer = ".".join((package, *file.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__")
            seen += [(importer, imported) for imported in string_imports(file.read_text("utf-8"))]
    assert {(pair, name) for pair in seen for name in broken(*pair)} == set()


@pytest.mark.parametrize(
    ("importer", "source", "contract"),
    [
        ("costbank.bank.reader", "require('costbank.loss', 'train').open_costs(bank)", "A bank never knows"),
        ("costbank.vocab", "importlib.import_module('costbank.sources.lm_head')", "each room knows only the rooms"),
        ("costbank.loss.engine.blocks", "find_spec('costbank.config')", "The loss knows banks"),
        ("costbank.export.words", "__import__('costbank.loss')", "Exports and copies"),
        (
            "costbank.analysis.health",
            "import_module('costbank.trainers.heads')",
            "Of ours, only the demo stands on trainers, as users do",
        ),
        ("costbank.store", "import_module('costbank_service.app')", "The command line stands on the service"),
    ],
)
def test_a_contract_that_is_broken_by_a_string_is_seen(importer: str, source: str, contract: str):
    (imported,) = string_imports(source)
    assert any(contract in name for name in broken(importer, imported))
