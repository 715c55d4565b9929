"""`costbank report`: the file that it writes, and what it refuses."""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import costbank
from costbank.analysis.comparison import compare_banks
from costbank.analysis.health import health
from costbank.analysis.report.content import gather
from costbank.bank import Bank
from costbank.progress import QuietProgress
from tests.unit.varied_bank import varied_bank

SECTIONS = ["bank", "health", "costs", "frequency", "hubs", "map", "neighborhoods"]


class _Page(HTMLParser):
    """The ids of a page, its text outside of scripts and styles, and the data of its charts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.text = ""
        self._inside = ""
        self._scripts: list[str] = []
        self.feed(path.read_text("utf-8"))
        self.charts: dict[str, dict] = json.loads(self._scripts[0])["charts"]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self._scripts.append(data)
        elif self._inside != "style":
            self.text += data


def test_a_report_has_every_section_and_says_what_the_bank_is(run, news_bank: Bank, tmp_path: Path):
    out = tmp_path / "news.html"
    result = run("report", "news", "--out", out)
    assert result.status == 0, result.err
    assert result.out == f"{out}  {out.stat().st_size / 1e6:,.1f} MB; open it in a browser\n"
    assert "write the page" in result.err
    page = _Page(out)
    assert [name for name in page.ids if name in SECTIONS] == SECTIONS
    assert set(page.charts) == {"costs-histogram", "rank-curve", "norms", "centrality", "occurrences"} <= set(page.ids)
    expected = health(news_bank)
    for fact in (f"news@{news_bank.id}", "2,000 × 24, F32", "word2vec.epochs", expected.verdict):
        assert fact in page.text
    for finding in expected.findings:
        assert finding.code in page.text
        assert finding.advice in page.text
    assert "costbank layout news" in page.text
    assert out.stat().st_size < 10e6


def test_the_same_bank_gives_the_same_file(run, tmp_path: Path):
    for name in "ab":
        assert run("report", "news", "--out", tmp_path / name).status == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_json_names_the_file_and_both_banks(run, news_bank: Bank, tmp_path: Path):
    out = tmp_path / "both.html"
    other = _other(news_bank, tmp_path)
    document = json.loads(run("report", "news", other.path, "--out", out, "--json").out)
    assert document == {
        "bank": "news", "id": news_bank.id, "other": {"bank": "varied", "id": other.id}, "path": str(out),
        "size": out.stat().st_size,
    }  # fmt: skip
    page = _Page(out)
    assert {"comparison", "compared-ranks"} <= set(page.ids)
    assert f"{other.size:,} × {other.dim}, F32" in page.text
    expected = compare_banks(news_bank, other, 10, 15)
    for value in (expected.overlap, expected.rank_biased_overlap, expected.pearson, expected.spearman,
                  expected.linear_cka):  # fmt: skip
        assert f"{value:.4f}" in page.text
    for token in expected.most_different:
        assert token.text in page.text
        assert token.second_neighbors[0].text in page.text


def _other(news_bank: Bank, place: Path) -> Bank:
    """A bank with 300 tokens of the news bank and random rows."""
    ids = np.flatnonzero(news_bank.usable & news_bank.vocab.ordinary)[-300:].tolist()
    return varied_bank(place, [news_bank.vocab.token(i) for i in ids], k=12)


def test_an_existing_file_is_replaced_only_with_force(run, tmp_path: Path):
    out = tmp_path / "news.html"
    out.write_text("mine")
    result = run("report", "news", "--out", out)
    assert (result.status, result.out, out.read_text()) == (2, "", "mine")
    assert "--force" in result.err
    assert "measure rows" not in result.err
    assert run("report", "news", "--out", out, "--force").status == 0
    assert out.read_text("utf-8").startswith("<!doctype html>")
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [("missing/news.html", 3, "does not exist\nhint: create it first: mkdir -p"), (".", 2, "is a directory")],
)
def test_a_file_that_cannot_be_made_is_refused_before_any_work(
    run, tmp_path: Path, name: str, status: int, message: str
):
    result = run("report", "news", "--out", tmp_path / name)
    assert (result.status, result.out) == (status, "")
    assert message in result.err
    assert "measure rows" not in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_missing_out_and_a_missing_bank_are_explained(run, tmp_path: Path):
    assert "--out" in run("report", "news").err
    assert run("report", "nothing", "--out", tmp_path / "x").status == 3
    assert run("report", "news", "nothing", "--out", tmp_path / "x").status == 3


@pytest.mark.parametrize("library", ["plotly.graph_objects", "jinja2"])
def test_a_missing_library_is_named_before_any_work(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str):
    monkeypatch.setitem(sys.modules, library, None)
    result = run("report", "news", "--out", tmp_path / "news.html")
    assert (result.status, result.out) == (2, "")
    assert library in result.err
    assert "costbank[report]" in result.err
    assert "measure rows" not in result.err


def test_an_interrupt_leaves_the_old_file(tmp_path: Path, news_bank: Bank, monkeypatch: pytest.MonkeyPatch):
    from costbank.analysis.report import page, write_report

    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    (tmp_path / "news.html").write_text("old")
    monkeypatch.setattr(page, "_rendered", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_report(news_bank, tmp_path / "news.html", force=True)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize(
    ("tokens", "options", "charts"),
    [
        ([b" a"], {"k": 0}, set()),
        ([b" a", b" b"], {"k": 1}, {"costs-histogram", "rank-curve", "occurrences"}),
        ([b" a", b" b", b" c"], {"k": 0}, {"costs-histogram", "rank-curve"}),
        ([b" a", b" b", b" c"], {"k": 2, "without_vector": [0, 1, 2]}, set()),
        ([b" a", b" b", b" c"], {"k": 2, "counts": [0, 0, 9], "mapped": True},
         {"costs-histogram", "rank-curve", "centrality", "occurrences", "map-status", "map-frequency"}),
        ([b" a", b" b", b" c"], {"k": 2, "counts": [-1, 4, 9], "norms": np.array([1, 2, 3]), "mapped": True},
         {"costs-histogram", "rank-curve", "norms", "centrality", "occurrences", "map-status", "map-frequency"}),
    ],
    ids=["one token", "two tokens", "no table", "no vectors", "a map", "some counts"],
)  # fmt: skip
def test_a_bank_that_lacks_something_has_a_report_without_it(
    run, tmp_path: Path, tokens: list[bytes], options: dict, charts: set[str]
):
    bank = varied_bank(tmp_path, tokens, **options)
    result = run("report", bank.path, "--out", tmp_path / "page.html")
    assert result.status == 0, result.err
    page = _Page(tmp_path / "page.html")
    assert set(page.charts) == charts
    assert [name for name in page.ids if name in SECTIONS] == SECTIONS
    if "norms" in charts:  # the token with an unknown count is not on this map
        assert "Map of tokens colored by their count, from 4 to 9." in page.text


def test_settings_with_broken_text_are_written(run, tmp_path: Path):
    bank = varied_bank(tmp_path, [b" a", b" b"], k=1, config={"path": "caf\udce9/<i>"})
    assert run("report", bank.path, "--out", tmp_path / "page.html").status == 0
    assert r"caf\xe9/<i>" in _Page(tmp_path / "page.html").text


def test_a_large_map_is_a_sample_and_says_so(tmp_path: Path):
    bank = varied_bank(tmp_path, [b" %d" % i for i in range(80)], k=2, mapped=True)
    (chart,) = gather(bank, None, QuietProgress(), most_placed=50).charts["map"]
    assert "a random sample of 50 of 80 tokens with a place on the map" in chart.caption
    assert "25% of a token's 10 nearest tokens are among the 10 nearest on the map" in chart.caption
    assert [len(trace["text"]) for trace in chart.figure["data"]] == [50]


def test_figures_have_only_colors_with_a_dark_counterpart(tmp_path: Path):
    from costbank.analysis.report import report_page
    from costbank.analysis.report.charts import DARK

    options = {"counts": [3, 4, 9], "norms": np.array([1, 2, 3]), "mapped": True}
    bank = costbank.open_bank(varied_bank(tmp_path, [b" a", b" b", b" c"], k=2, **options).path)
    data = re.search(r'<script type="application/json" id="charts">(.*?)</script>', report_page(bank))
    assert data is not None
    figures = json.dumps([chart["figure"] for chart in json.loads(data[1])["charts"].values()])
    colors = set(re.findall(r'"(#[0-9a-fA-F]{3,8}|rgba?\([^"]*\))"', figures))
    assert len(colors) > 8
    assert colors <= set(DARK)
