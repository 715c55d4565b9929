"""The rules of this code base that can be measured: sizes of modules and functions, import cycles, names of classes.

Every import statement is an arrow, at the top of a module or inside a function, except imports for type checkers only.
Imports by a string, which `costbank` uses to load its parts lazily, are not arrows here; `tests/unit/test_layers.py`
checks those.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = (ROOT / "costbank", ROOT / "service/costbank_service", ROOT / "cli/costbank_cli")
MOST_MODULE_LINES = 400
MOST_FUNCTION_LINES = 60
LEAST_TABLE_LINES = 10

Trees = dict[str, ast.Module]


def sources(*folders: Path) -> dict[str, str]:
    """The sources of the modules in package folders, by full name; a package's source is its `__init__`."""
    named = {}
    for folder in folders:
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder.parent).with_suffix("").parts
            named[".".join(parts).removesuffix(".__init__")] = file.read_text("utf-8")
    return named


@cache
def trees(*folders: Path) -> Trees:
    """The syntax trees of these modules."""
    return {name: ast.parse(source) for name, source in sources(*folders).items()}


def long_modules(*folders: Path) -> dict[str, int]:
    """Modules with too many lines, and how many; lines of tables do not count."""
    parsed = trees(*folders)
    counts = {name: source.count("\n") - _table_lines(parsed[name]) for name, source in sources(*folders).items()}
    return {name: lines for name, lines in counts.items() if lines > MOST_MODULE_LINES}


def long_functions(modules: Trees) -> dict[str, int]:
    """Functions with too many lines from `def` to their end, and how many; lines of tables do not count."""
    counts = {
        f"{name}.{node.name}": _lines(node) - _table_lines(node)
        for name, tree in modules.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return {name: lines for name, lines in counts.items() if lines > MOST_FUNCTION_LINES}


def _lines(node: ast.stmt | ast.expr) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _table_lines(node: ast.AST) -> int:
    """Lines of tables: lists, tuples, sets and dicts of ten lines or more that contain only constants."""
    if isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict) and _is_constant(node):
        return _lines(node) if _lines(node) >= LEAST_TABLE_LINES else 0
    return sum(_table_lines(child) for child in ast.iter_child_nodes(node))


def _is_constant(node: ast.AST) -> bool:
    try:
        ast.literal_eval(node)  # type: ignore[arg-type]
    except ValueError:
        return False
    return True


def arrows(modules: Trees) -> Iterator[tuple[str, str]]:
    """Pairs of modules of which the first imports the second."""
    for importer, tree in modules.items():
        for node in _run_time_nodes(tree):
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{importer} has a relative import"
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                imported = [name if name in modules else str(node.module) for name in inner]
            else:
                continue
            yield from ((importer, name) for name in imported if name in modules)


def _run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield from _run_time_nodes(child)


def circles(modules: Trees) -> dict[str, set[str]]:
    """The members of each package that import each other in a cycle.

    A member is a module or a subpackage with everything in it; `__init__` is the package's own code. A cycle between
    modules of different subpackages appears as a cycle between members of the smallest package that contains them all.
    """
    packages = {package for name in modules for package in _ancestors(name)}
    graphs: dict[str, dict[str, set[str]]] = {package: defaultdict(set) for package in packages}
    for pair in arrows(modules):
        for package in packages:
            ends = [_member(package, name) for name in pair]
            if None not in ends and ends[0] != ends[1]:
                graphs[package][str(ends[0])].add(str(ends[1]))
    members = {package: {name for name in graph if name in _reached(graph, name)} for package, graph in graphs.items()}
    return {package: names for package, names in members.items() if names}


def _ancestors(module: str) -> Iterator[str]:
    while module := module.rpartition(".")[0]:
        yield module


def _member(package: str, module: str) -> str | None:
    if module == package:
        return "__init__"
    return module.removeprefix(f"{package}.").split(".")[0] if module.startswith(f"{package}.") else None


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    reached: set[str] = set()
    waiting = list(graph.get(start, ()))
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += graph.get(name, ())
    return reached


def shared_class_names(modules: Trees) -> dict[str, list[str]]:
    """Names that several public classes share, with the modules that define them.

    A class inside a class, such as the `Config` of each component of torchtitan, is named after both.
    """
    places: dict[str, list[str]] = defaultdict(list)
    for module, tree in modules.items():
        classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        inner = {child for node in classes for child in node.body if isinstance(child, ast.ClassDef)}
        for node in classes:
            if node not in inner and not node.name.startswith("_"):
                places[node.name].append(module)
    return {name: holders for name, holders in places.items() if len(holders) > 1}


def test_no_module_is_longer_than_400_lines():
    assert long_modules(*FOLDERS) == {}


def test_no_function_is_longer_than_60_lines():
    assert long_functions(trees(*FOLDERS)) == {}


def test_imports_form_no_circle():
    assert circles(trees(*FOLDERS)) == {}


def test_no_two_public_classes_have_one_name():
    assert shared_class_names(trees(*FOLDERS)) == {}


def _write(folder: Path, files: dict[str, str]) -> Path:
    for name, source in files.items():
        (folder / "made" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "made" / name).write_text(source)
    return folder / "made"


def test_a_long_module_is_seen_and_a_table_is_not(tmp_path: Path):
    table = "TABLE = {\n" + '    "key": ("value", 1),\n' * 400 + "}\n"
    made = _write(tmp_path, {"table.py": table, "right.py": "x = 1\n" * 400, "long.py": "x = 1\n" * 401})
    assert long_modules(made) == {"made.long": 401}


def test_a_long_function_is_seen_and_a_table_is_not(tmp_path: Path):
    table = "def table():\n    return [\n" + "        1,\n" * 70 + "    ]\n"
    calls = "def calls():\n    return [\n" + "        call(),\n" * 70 + "    ]\n"
    right, long = "def right():\n" + "    x = 1\n" * 59, "class Some:\n    async def long():\n" + "        x = 1\n" * 60
    made = _write(tmp_path, {"one.py": table + calls + right, "two.py": long})
    assert long_functions(trees(made)) == {"made.one.calls": 73, "made.two.long": 61}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a.py": "import made.b", "b.py": "from made import a"}, {"made": {"a", "b"}}),
        ({"a.py": "import made.b", "b.py": "def f():\n    from made.a import x"}, {"made": {"a", "b"}}),
        ({"a.py": "from made.b import x", "b.py": "from made.c import x", "c.py": "from made.a import x"},
         {"made": {"a", "b", "c"}}),
        ({"__init__.py": "from made.a import x", "a.py": "from made import y"}, {"made": {"__init__", "a"}}),
        ({"one/a.py": "import made.two.b", "two/b.py": "", "two/c.py": "import made.one.d", "one/d.py": ""},
         {"made": {"one", "two"}}),
        ({"one/__init__.py": "", "one/a.py": "from made.one.b import x", "one/b.py": "import made.one.a"},
         {"made.one": {"a", "b"}}),
        ({"a.py": "from made.b import x", "b.py": "import typing\nif typing.TYPE_CHECKING:\n    import made.a"},
         {}),
        ({"__init__.py": "from made.a import x", "a.py": "from made.b import x", "b.py": "import numpy, other.a"}, {}),
    ],
)  # fmt: skip
def test_circles_are_seen_between_modules_and_between_packages(
    tmp_path: Path, files: dict[str, str], expected: dict[str, set[str]]
):
    assert circles(trees(_write(tmp_path, files))) == expected


def test_two_public_classes_of_one_name_are_seen(tmp_path: Path):
    same = "class Head: pass\nclass _Sums: pass\n"
    made = _write(tmp_path, {"a.py": same, "b/c.py": same, "d.py": "class Heads: pass\n"})
    assert shared_class_names(trees(made)) == {"Head": ["made.a", "made.b.c"]}
