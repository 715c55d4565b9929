"""A hook of MkDocs that makes pages from some files outside `docs/`, and adapts links to files outside `docs/`.

Pages link to files by relative paths, which work in the repository. On the site, a link to a file of `PAGES` or to an
example leads to its page, and a link to any other existing file becomes plain text. A link to a file that does not
exist is unchanged, so that MkDocs refuses it.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

__all__ = ["PAGES", "on_files", "on_page_markdown"]

ROOT = Path(__file__).parents[2]

PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing/index.md",
    "SECURITY.md": "contributing/security.md",
    "costbank/README.md": "contributing/library.md",
    "costbank/bank/README.md": "reference/bank-format.md",
    "costbank/loss/README.md": "contributing/loss.md",
    "examples/README.md": "examples/index.md",
}
"""The pages of the site that are made from files outside `docs/`."""

_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s:]+)(?P<anchor>#[^)\s]*)?\)")


def _pages() -> dict[str, str]:
    examples = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
    return PAGES | {f"examples/{name}": f"examples/{name.removesuffix('.py')}.md" for name in examples}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every file of `PAGES` and every example."""
    for source, page in _pages().items():
        content = (ROOT / source).read_text("utf-8")
        if source.endswith(".py"):
            content = f"# {posixpath.basename(source)}\n\n```python\n{content}```\n"
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    pages = _pages()
    here = page.file.src_uri
    source = next((path for path, made in pages.items() if made == here), f"docs/{here}")

    def replaced(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link["target"]))
        made = pages.get(target) or pages.get(f"{target}/README.md")
        if made is None and target.startswith("docs/"):
            made = target.removeprefix("docs/")
        if made is not None:
            return f"[{link['text']}]({posixpath.relpath(made, posixpath.dirname(here))}{link['anchor'] or ''})"
        return link["text"] if (ROOT / target).exists() else link[0]

    return _LINK.sub(replaced, markdown)
