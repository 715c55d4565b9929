"""Generated pages are up to date and match the code; figures are those of data/bench/results.csv."""

import csv
import json
import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest
from costbank_cli.command_line import COMMANDS, command_line
from costbank_service import Settings, create_app
from fastapi.testclient import TestClient

from costbank import errors
from costbank.bank import Bank
from costbank.config import settings
from docs.generators import figures, picture, problems
from docs.generators.__main__ import main
from docs.generators.pages import DOCS, PAGES, outdated, write_all
from docs.generators.tables import table

SVG = "{http://www.w3.org/2000/svg}"


def _page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def test_every_generated_page_is_up_to_date():
    assert outdated() == [], "run python -m docs.generators"


def test_pages_that_were_edited_or_are_missing_are_named(tmp_path: Path):
    docs, edited = tmp_path / "docs", "reference/settings.md"
    docs.mkdir()
    write_all(docs)
    assert outdated(docs) == []
    (docs / edited).write_text(_page(edited) + "edited\n", "utf-8")
    assert outdated(docs) == [edited]
    for name in PAGES:
        (docs / name).write_text(_page(name) + "edited\n", "utf-8")
    assert outdated(docs) == list(PAGES)
    for name in PAGES:
        (docs / name).unlink()
    assert outdated(docs) == list(PAGES)


def test_the_check_takes_one_option(capsys: pytest.CaptureFixture[str]):
    assert main(["--check"]) == 0
    assert main(["--chek"]) == 2
    assert "usage: python -m docs.generators [--check]" in capsys.readouterr().err


def _leaves(command: click.Command, path: str) -> dict[str, click.Command]:
    if not isinstance(command, click.Group):
        return {path: command}
    names = command.list_commands(click.Context(command))
    commands = {name: command.get_command(click.Context(command), name) for name in names}
    inner = {name: command for name, command in commands.items() if command}
    return {leaf: c for name, command in inner.items() for leaf, c in _leaves(command, f"{path} {name}").items()}


def test_the_command_line_page_has_every_command_and_option():
    page = _page("reference/cli.md")
    commands = _leaves(command_line, "costbank")
    assert len(commands) >= len(COMMANDS)
    sections = {text.splitlines()[0]: text for text in page.split("\n## ")[1:]}
    assert list(sections) == list(commands)
    for path, command in commands.items():
        for option in (p for p in command.params if isinstance(p, click.Option)):
            assert re.search(rf"^\| `[^`]*{re.escape(option.opts[0])}\b", sections[path], re.M), (path, option.opts)


def test_help_that_looks_like_markup_is_shown_as_it_is():
    page = _page("reference/cli.md")
    assert "corpus.text\\_field" in page
    assert "costbank tokenizer train docs.jsonl --set corpus.text_field=body" in page


def test_the_settings_page_has_every_setting():
    assert all(f"| `{name}`" in _page("reference/settings.md") for name in settings())


def test_the_errors_page_has_every_code_and_the_whole_tree():
    page = _page("reference/errors.md")
    kinds = [kind for name in errors.__all__ if isinstance(kind := getattr(errors, name), type)]
    assert len(kinds) > 10
    for kind in kinds:
        row = next(line for line in page.splitlines() if line.startswith(f"| `{kind.code}` |"))
        assert row.endswith(f"| `{kind.__name__}` | {kind.exit_status} | {kind.http_status} |")
        assert re.search(rf"^[│├└─ ]*{kind.__name__}\b", page, re.M)


def test_every_code_that_the_service_sends_has_a_page():
    pages = {path.stem for path in (DOCS / "reference/errors").iterdir()}
    listed = re.findall(r"^\| \[`(\S+)`\]\(errors/(\S+)\.md\) ", _page("reference/errors.md"), re.M)
    kinds = [kind for name in errors.__all__ if isinstance(kind := getattr(errors, name), type)]
    sent = {kind.code for kind in (*kinds, *problems.service_errors())} | set(problems.HTTP_CODES)
    assert pages == sent
    assert {code for code, page in listed if code == page} == sent


@pytest.mark.parametrize("path", ["/v1/banks/none", "/nothing", "/v1/banks/news/map", "/v1/banks?page=2"])
def test_the_page_of_a_problem_has_its_title_and_status(news_bank: Bank, path: str):
    pages = "https://docs.example/reference/errors/"
    with TestClient(create_app(Settings(store=news_bank.path.parents[1], problem_base=pages))) as client:
        problem = client.get(path).json()
    example = json.loads(_page(f"reference/errors/{problem['code']}.md").partition("```json")[2].partition("```")[0])
    for key in ("type", "title", "status", "code"):
        assert problem[key] == example[key]


def test_cells_of_tables_stay_in_their_column():
    assert table(("a",), [("x|y\nz",)]) == "| a |\n| --- |\n| x\\|y z |\n"


def test_a_figure_is_the_newest_row_of_its_measurement():
    with figures.RESULTS.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["benchmark"], row["measure"]) == ("lm_head", "peak memory")]
    assert len({row["median"] for row in rows}) > 1
    assert figures.fill("{lm_head: peak memory} MB") == f"{float(rows[-1]['median']):.4g} MB"
    assert figures.fill("{counting: text * 1e-6}") == "10.09"


@pytest.mark.parametrize("text", ["{lm_head: no such}", "{transfer: overlap@10}", "{transfer: overlap@10 @ no such}"])
def test_a_figure_that_is_not_one_row_is_refused(text: str):
    with pytest.raises(LookupError, match="and should match 1"):
        figures.fill(text)


def test_the_readme_shows_only_figures_of_the_results():
    text = (DOCS.parent / "README.md").read_text("utf-8")
    shown = re.search(r"begin -->\n(.*)<!--", text, re.DOTALL)
    assert shown
    rows = [line for line in shown[1].splitlines() if line.startswith("| ")][2:]
    assert len(rows) >= 5
    assert all(row in _page("measured.md") for row in rows)


def _numbers(svg: str) -> list[tuple[float, float]]:
    """The length and the printed number of each bar of EMO costs."""
    parts = list(ElementTree.fromstring(svg))
    return [
        (float(bar.attrib["width"]), float(text.text or ""))
        for bar, text in pairwise(parts)
        if bar.tag == f"{SVG}rect" and bar.attrib["class"] == "cost"
    ]


def test_the_picture_shows_the_costs_of_its_bank(news_bank: Bank):
    bars = picture.bars_of(news_bank, "people", ("police", "cricket"), related=3)
    assert [token for token, _ in bars.costs][3:] == ["police", "cricket"]
    assert list(bars.costs[:3]) == sorted(bars.costs[:3], key=lambda bar: bar[1])
    for token, cost in bars.costs:
        assert cost == pytest.approx(news_bank.cost(token, "people"), abs=1e-6)
    drawn = _numbers(picture.draw(bars))
    assert [number for _, number in drawn] == [round(cost, 2) for _, cost in bars.costs]


def test_tokens_that_look_like_markup_are_escaped():
    assert "a &lt;b&gt;" in picture.draw(picture.Bars("x", (("a <b>", 0.5),)))


def test_the_committed_picture_is_true_to_scale_and_needs_nothing_from_elsewhere():
    svg = picture.PICTURE.read_text("utf-8")
    drawn = _numbers(svg)
    assert len(drawn) == 5 + len(picture.UNRELATED)
    for length, number in drawn:
        assert length == pytest.approx(220 * number, abs=1.2)
    assert "prefers-color-scheme: dark" in svg
    assert picture.SOURCE in svg
    assert re.findall(r"https?://[^\"'\s]+", svg) == ["http://www.w3.org/2000/svg"]
