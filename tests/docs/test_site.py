"""The site builds without a warning and without a network, and works from files; all links have a target."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from docs.generators.outside import PAGES

ROOT = Path(__file__).parents[2]
README_PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *ROOT.glob("costbank/**/*.md"),
                *sorted((ROOT / "docs").rglob("*.md")), ROOT / "examples" / "README.md"]  # fmt: skip

NO_NETWORK = """
import socket, sys
def refused(*_): raise OSError("this build must not use the network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refused
from mkdocs.__main__ import cli
cli(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-c", NO_NETWORK, "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


class _References(HTMLParser):
    """The files that a page loads, its links, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if "src" in values:
            self.loads.append(values["src"])
        if tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload", "preconnect", "modulepreload"):
            self.loads.append(values["href"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])


def _pages(site: Path) -> dict[Path, _References]:
    return {path: _References(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}


def test_no_page_loads_anything_from_elsewhere(site: Path):
    pages = _pages(site)
    assert len(pages) > 30
    for path, page in pages.items():
        assert page.loads
        for target in page.loads:
            assert not re.match(r"(\w+:)?//", target), f"{path.name} loads {target}"
            if path.name != "404.html":  # its paths start at a server's root
                assert (path.parent / unquote(target.split("?")[0].split("#")[0])).exists(), f"{path.name}: {target}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", style.read_text("utf-8")), style.name


def test_every_link_within_the_site_leads_to_a_page_and_an_anchor(site: Path):
    pages = _pages(site)
    for path, page in pages.items():
        if path.name == "404.html":
            continue
        for link in page.links:
            target, _, anchor = unquote(link).partition("#")
            if re.match(r"\w+:", target):
                continue
            linked = (path.parent / target).resolve() if target else path
            assert linked.exists(), f"{path.relative_to(site)} links to {link}"
            if anchor and linked.suffix == ".html" and anchor != "__codelineno":
                assert anchor in pages[linked].anchors, f"{path.relative_to(site)} links to {link}"


def test_search_works_without_a_server(site: Path):
    """The search index is also a script, because a page that is opened as a file cannot fetch it."""
    index = (site / "search" / "search_index.js").read_text("utf-8")
    assert "entropy_gate" in index
    assert "COSTBANK_MAX_K" in index


def test_the_python_page_shows_signatures(site: Path):
    page = (site / "reference" / "python.html").read_text("utf-8")
    assert 'id="costbank.loss.LinearEMOLoss"' in page
    assert 'id="costbank.build"' in page


def test_files_outside_docs_are_pages_and_links_between_them_work(site: Path):
    for page in PAGES.values():
        assert (site / page.replace(".md", ".html")).is_file()
    library = _References((site / "contributing" / "library.html").read_text("utf-8"))
    assert "../reference/bank-format.html" in library.links
    assert "glossary" in library.anchors
    assert "plain_loop.html" in _References((site / "examples" / "index.html").read_text("utf-8")).links


def test_generators_are_not_published(site: Path):
    assert not (site / "generators").exists()


def _heading_anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ +(.*)$", page.read_text("utf-8"), re.M)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).lower()).strip().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("page", README_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_in_the_repository_exist(page: Path):
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        if anchor and linked.suffix == ".md":
            assert anchor in _heading_anchors(linked), target


def test_the_readme_is_short_and_begins_with_why_a_picture_and_code():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= 150
    first_screen = "\n".join(lines[:26])
    assert "Cross-entropy treats every wrong token as equally wrong" in first_screen
    assert "](docs/assets/costs.svg)" in first_screen
    assert "pip install" in first_screen
    assert "```python" in first_screen
