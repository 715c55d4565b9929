"""A hook of MkDocs: files of the repository outside `docs/` become pages of the site, and links to them work.

In the repository a page links to files by relative paths, which a reader of the repository can follow. On the site a
link to a file of `PAGES` or to an example leads to the page made of it. A link to any other file that exists becomes
plain text; a link to a file that does not exist is left for MkDocs, which refuses it.
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
"""Where files of the repository stand on the site."""

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
