"""A report in a real browser: it draws every chart, loads nothing, and shows texts of tokens as texts."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from costbank.analysis.report import write_report
from costbank.bank import Bank
from costbank.vocab import TokenStatus
from tests.unit.varied_bank import varied_bank
from tests.web.pages import clean_page

HOSTILE = [
    b"<script>window.hacked=1</script>",
    b"</script><script>window.hacked=1</script>",
    b'"><img src=x onerror=window.hacked=1>',
    b"<b>bold</b>",
    b'<a href="javascript:window.hacked=1">x</a>',
    b"{{ 7 * 7 }}{% raw %}",
    b"%{x}<br>&lt;i&gt;",
    b"<!--",
    b"]]>",
    "שלום".encode(),
    "\u202eevil".encode(),
    b"\x00\x1b[2J\r\n",
    b"\xff\xfe",
    "日本語".encode(),
]
ORDINARY = [b" word%d" % i for i in range(40)]
CHARTS = [
    "compared-ranks",
    "costs-histogram",
    "rank-curve",
    "norms",
    "centrality",
    "occurrences",
    "map-status",
    "map-frequency",
]

# Charts are drawn when they come near the window.
WAIT = "key => { document.getElementById(key).scrollIntoView(); return !!document.querySelector(`#${key} .main-svg`) }"


@pytest.fixture(scope="module")
def banks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bank, Bank]:
    """Two banks of hostile tokens with all that a report can show."""
    tokens = HOSTILE + ORDINARY
    options = {
        "counts": list(range(1, len(tokens) + 1)), "norms": np.arange(1, len(tokens) + 1), "mapped": True,
        "status": [TokenStatus.BYTE] * 2 + [TokenStatus.OK] * (len(tokens) - 2), "config": {"note": "</td><script>"},
    }  # fmt: skip
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    return tuple(varied_bank(folder, tokens, k=8, seed=n, **options) for n, folder in enumerate(folders))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def report(banks: tuple[Bank, Bank], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(banks[0], tmp_path_factory.mktemp("report") / "page.html", banks[1]).path


@pytest.fixture(scope="module")
def requests() -> list[str]:
    """The addresses that the shared page has requested."""
    return []


@pytest.fixture(scope="module")
def shown(browser: Browser, report: Path, requests: list[str]) -> Iterator[Page]:
    """The report with every chart drawn, as narrow as a phone."""
    with clean_page(browser, viewport={"width": 400, "height": 800}, color_scheme="light") as page:
        page.on("request", lambda request: requests.append(request.url))
        page.goto(report.as_uri(), wait_until="domcontentloaded")
        for key in CHARTS:
            page.wait_for_function(WAIT, arg=key)
        yield page


def test_every_chart_is_drawn_and_nothing_is_requested(shown: Page, report: Path, requests: list[str]):
    assert shown.locator(".chart").evaluate_all("all => all.map(one => one.id)") == CHARTS
    assert all(shown.locator(f"#{key}").bounding_box()["height"] > 200 for key in CHARTS)  # type: ignore[index]
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == [report.as_uri()]


def test_the_policy_of_the_page_refuses_requests_and_scripts(browser: Browser, report: Path):
    """Even if a text of a bank became markup, it could neither run nor send anything."""
    policy = re.search(r"<meta http-equiv=[^>]*>", report.read_text("utf-8"))
    assert policy is not None
    page = browser.new_page()
    page.set_content(f"<!doctype html>{policy[0]}<p onclick='window.hacked=1'>x</p><script>window.hacked=1</script>")
    page.click("p")
    refused = page.evaluate(
        """() => new Promise(resolve => {
            document.addEventListener("securitypolicyviolation", event => resolve(event.effectiveDirective));
            fetch("https://example.org").catch(() => {});
        })"""
    )
    assert refused == "connect-src"
    assert page.evaluate("window.hacked") is None
    page.close()


def test_texts_of_tokens_are_shown_as_texts(shown: Page, banks: tuple[Bank, Bank]):
    assert shown.evaluate("window.hacked") is None
    assert shown.locator("main img, main a, main b").count() == 0
    texts = set(shown.locator("bdi.token").all_text_contents())
    vocab = banks[0].vocab
    assert {vocab.display(i) for i in range(len(HOSTILE))} <= texts
    assert r"\u202eevil" in texts
    assert r"\x00\x1b[2J\r\n" in texts
    assert "{{ 7 * 7 }}{% raw %}" in texts


# The place of a point of the map in the window. Status ok is the first trace, and its first point is id 2.
PLACE = """id => {
    const chart = document.getElementById("map-status"), { xaxis, yaxis } = chart._fullLayout;
    chart.scrollIntoView();
    const trace = chart._fullData[0], box = chart.getBoundingClientRect();
    return [box.x + xaxis._offset + xaxis.l2p(trace.x[id - 2]), box.y + yaxis._offset + yaxis.l2p(trace.y[id - 2])];
}"""


@pytest.mark.parametrize("token", [3, 4, 6, 9])
def test_a_chart_shows_the_text_of_a_token_as_a_text(shown: Page, banks: tuple[Bank, Bank], token: int):
    text = banks[0].vocab.display(token)
    label = f"\u2068{text if len(text) <= 24 else text[:23] + '…'}\u2069"
    x, y = shown.evaluate(PLACE, token)
    shown.mouse.move(x - 2, y)
    shown.mouse.move(x, y)
    shown.wait_for_function(
        "label => document.querySelector('#map-status .hovertext')?.textContent === label", arg=label
    )
    assert shown.locator("#map-status .hovertext a").count() == 0


def test_a_phone_needs_no_scrolling_sideways(shown: Page):
    assert shown.evaluate("document.documentElement.scrollWidth") == 400


def test_charts_follow_the_scheme_and_are_light_in_print(shown: Page):
    def wait_for(color: str) -> None:
        shown.wait_for_function(
            "color => getComputedStyle(document.querySelector('#rank-curve .main-svg')).backgroundColor === color",
            arg=color,
        )

    shown.emulate_media(color_scheme="dark")
    wait_for("rgb(20, 24, 29)")
    assert shown.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(20, 24, 29)"
    shown.emulate_media(color_scheme="dark", media="print")
    wait_for("rgb(255, 255, 255)")
    assert not shown.locator("nav").is_visible()
    shown.emulate_media(color_scheme="light", media="screen")
    wait_for("rgb(255, 255, 255)")
    assert shown.locator("nav").is_visible()


def test_the_page_is_accessible_in_both_schemes(shown: Page):
    """The last test of this page: it removes most rows of tables, which are alike, because axe takes long."""
    shown.evaluate(
        "document.querySelectorAll('script, tbody tr:nth-child(n+4), .near li:nth-child(n+4)').forEach(e => e.remove())"
    )
    assert Axe().run(shown, options={"resultTypes": ["violations"]}).response["violations"] == []
    shown.emulate_media(color_scheme="dark")
    dark = Axe().run(shown, options={"resultTypes": ["violations"], "runOnly": ["color-contrast"]}).response
    assert dark["violations"] == []
    assert dark["passes"]
