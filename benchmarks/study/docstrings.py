"""Text that everybody who has Python can make: the docstrings of the standard library.

    python -m benchmarks.study.docstrings text stdlib.txt
    python -m benchmarks.study.docstrings pairs stdlib-pairs.txt

`text` writes a paragraph per line. `pairs` writes `PROMPT<TAB>ANSWER` per line: the name and the arguments of a
function, method or class, and the first paragraph of its docstring. Source files are parsed and never imported. The
same version of Python gives the same lines.
"""

import argparse
import ast
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from costbank.files import write_atomically

__all__ = ["pairs", "paragraphs", "write_docstrings"]

_SKIPPED = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages"}
_LEAST_CHARACTERS = 20
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Documented = _Function | ast.ClassDef | ast.Module


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study.docstrings", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("kind", choices=("text", "pairs"), help="paragraphs, or pairs for fine-tuning")
    parser.add_argument("file", type=Path, help="the file to write")
    options = parser.parse_args()
    count = write_docstrings(options.kind, options.file, Path(sysconfig.get_path("stdlib")))
    print(f"{count:,} lines written to {options.file}")


def write_docstrings(kind: Literal["text", "pairs"], file: Path, library: Path) -> int:
    """Write the paragraphs or the pairs of a folder of source files, one per line, and return their number."""
    lines = paragraphs(library) if kind == "text" else [f"{prompt}\t{answer}" for prompt, answer in pairs(library)]
    write_atomically(file, "".join(f"{line}\n" for line in lines).encode())
    return len(lines)


def paragraphs(library: Path) -> list[str]:
    """The distinct paragraphs of all docstrings, without examples and without those of fewer than 20 characters."""
    nodes = (node for module, tree in _modules(library) for _, node in _documented(tree, module))
    return list(dict.fromkeys(text for node in nodes for text in _paragraphs(node) if _is_kept(text)))


def pairs(library: Path) -> list[tuple[str, str]]:
    """Names with arguments, and the first paragraphs of their docstrings, filtered like `paragraphs`."""
    prompt_of: dict[str, str] = {}
    for module, tree in _modules(library):
        for name, node in _documented(tree, module):
            first = next(_paragraphs(node), "")
            if not isinstance(node, ast.Module) and _is_kept(first):
                prompt_of.setdefault(first, name + _arguments(node))
    return [(prompt, answer) for answer, prompt in prompt_of.items()]


def _modules(library: Path) -> Iterator[tuple[str, ast.Module]]:
    """The modules that can be parsed, with their names, in sorted order."""
    for path in sorted(path.relative_to(library) for path in library.rglob("*.py")):
        if _SKIPPED.isdisjoint(path.parts):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    tree = ast.parse((library / path).read_bytes())
            except (SyntaxError, ValueError):  # templates that are not Python of this version
                continue
            yield ".".join(part for part in path.with_suffix("").parts if part != "__init__"), tree


def _documented(node: ast.AST, name: str) -> Iterator[tuple[str, _Documented]]:
    """What can have a docstring, with its qualified name, in the order of the source."""
    if isinstance(node, _Documented):
        yield name, node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _Function | ast.ClassDef):
            yield from _documented(child, f"{name}.{child.name}")
        elif isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield from _documented(child, name)


def _paragraphs(node: _Documented) -> Iterator[str]:
    """The paragraphs of a docstring, each on one line."""
    docstring = (ast.get_docstring(node) or "").encode("utf-8", "replace").decode()
    return (" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", docstring))


def _is_kept(paragraph: str) -> bool:
    return len(paragraph) >= _LEAST_CHARACTERS and ">>>" not in paragraph


def _arguments(node: _Function | ast.ClassDef) -> str:
    """The arguments' names in parentheses, but for `self` and `cls`; those of a class are its constructor's."""
    if isinstance(node, ast.ClassDef):
        inits = [child for child in node.body if isinstance(child, _Function) and child.name == "__init__"]
        return _arguments(inits[0]) if inits else ""
    arguments = node.args
    names = [argument.arg for argument in [*arguments.posonlyargs, *arguments.args]]
    if arguments.posonlyargs:
        names.insert(len(arguments.posonlyargs), "/")
    if names[:1] in (["self"], ["cls"]):
        del names[: 2 if names[1:2] == ["/"] else 1]
    if arguments.vararg or arguments.kwonlyargs:
        names.append("*" + (arguments.vararg.arg if arguments.vararg else ""))
    names += [argument.arg for argument in arguments.kwonlyargs]
    names += [f"**{arguments.kwarg.arg}"] if arguments.kwarg else []
    return f"({', '.join(names)})"


if __name__ == "__main__":
    main()
