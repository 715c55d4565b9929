"""The page of the service, in a real browser against a running service."""

import json
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from click.testing import CliRunner
from costbank_cli.command_line import command_line
from costbank_service import Settings, serving
from PIL import Image
from playwright.sync_api import Browser, Page, expect

import costbank
from costbank.analysis.overlap import overlap
from costbank.bank import Bank
from tests.service.banks import add_map, write_bank
from tests.web.pages import clean_page

ODD = {
    "newline": b" a\nb",
    "html": b"<img src=x onerror=window.hacked=1>",
    "script": b"</script><script>window.hacked=1</script>",
    "right-to-left": " שלום".encode(),
    "override": "a\u202eb".encode(),
    "broken": b"\xe4\xbd\xff",
    "control": b"\x00\x1b[31m\x7f",
    "quote": b"'\"`$(touch x)\\",
    "carriage-return": b"a\r\nb\t ",
    "mark": "\ufeffa".encode(),
}
WORDS = [b" word%d" % i for i in range(300)] + [b" king", b"king", b"ing"]
TOKENS = [*WORDS, *ODD.values()]
ODD_ID = {name: len(WORDS) + position for position, name in enumerate(ODD)}
CORNERS = [0, 1, 2, 3]


class Served(NamedTuple):
    url: str
    store: Path
    words: Bank
    again: Bank
    other: Bank


@pytest.fixture
def expected_errors() -> list[str]:
    """Parts of messages that the page may write to its console: the browser logs every answer with an error."""
    return []


@pytest.fixture
def page(browser: Browser, expected_errors: list[str]) -> Iterator[Page]:
    with clean_page(browser, expected_errors, viewport={"width": 1280, "height": 900}) as page:
        yield page


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    store = tmp_path_factory.mktemp("explorer") / "store"
    xy = np.random.default_rng(0).uniform(-0.9, 0.9, (len(TOKENS), 2)).astype(np.float32)
    xy[CORNERS] = [(-1, -1), (1, -1), (-1, 1), (1, 1)]
    xy[5] = np.nan
    words = add_map(write_bank(store / "words", TOKENS), xy)
    again = write_bank(store / "again", TOKENS, seed=1)
    other = write_bank(store / "other", [b" king", b" queen", b" word7", b" word8", b" word9", b" prince"])
    with serving(Settings(store=store, port=0, refresh_ms=0)) as url:
        yield Served(url, store, words, again, other)


def _open(page: Page, served: Served, **state: object) -> None:
    given = "&".join(f"{name}={value}" for name, value in {"bank": "words", **state}.items())
    page.goto(f"{served.url}/#{given}", wait_until="domcontentloaded")
    expect(page.locator("#bank-facts")).to_contain_text("random")


def _listed(page: Page, where: str = "#card") -> list[tuple[str, str]]:
    rows = page.locator(f"{where} .neighbors button")
    return [
        (row.locator(".token").text_content() or "", row.locator(".cost").text_content() or "") for row in rows.all()
    ]


def _shown(bank: Bank, token: int, k: int = 10) -> list[tuple[str, str]]:
    return [(neighbor.text, f"{neighbor.cost:.4f}") for neighbor in bank.nearest(token, k)]


def test_page_command_and_library_show_the_same_neighbors(page: Page, served: Served):
    _open(page, served, token=17)
    expect(page.locator("#card h3")).to_have_text("▁word17")
    printed = CliRunner().invoke(command_line, ["nearest", "words", "id:17", "--store", str(served.store), "--json"])
    document = json.loads(printed.output)
    of_command = [(neighbor["text"], f"{neighbor['cost']:.4f}") for neighbor in document["neighbors"]]
    assert _listed(page) == _shown(served.words, 17) == of_command


def test_a_token_is_found_and_chosen_with_the_keyboard_alone(page: Page, served: Served):
    _open(page, served)
    page.keyboard.press("/")
    page.keyboard.type("word29")
    expect(page.locator("#search-status")).to_have_text("11 tokens")
    expect(page.locator("#matches").get_by_role("option")).to_have_count(11)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#matches").get_by_role("option", selected=True)).to_contain_text("▁word290")
    page.keyboard.press("Enter")
    expect(page.locator("#card h3")).to_have_text("▁word290")
    page.locator("#card .neighbors button").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    step = served.words.nearest(290, 2)[1]
    expect(page.locator("#card h3")).to_have_text(step.text)
    page.keyboard.press("ArrowDown")  # the focus is in the new list
    page.keyboard.press("Enter")
    expect(page.locator("#card h3")).to_have_text(served.words.nearest(step.id, 2)[1].text)


@pytest.mark.parametrize(
    ("text", "match", "found"),
    [("ord12", "contains", ["▁word12", "▁word120"]), ("piece:king", "prefix", ["king"]), ("id:302", "prefix", ["ing"]),
     ("hex:206b696e67", "prefix", ["▁king"]), ("king", "prefix", ["▁king", "king"])],
)  # fmt: skip
def test_the_search_takes_beginnings_parts_and_names(
    page: Page, served: Served, text: str, match: str, found: list[str]
):
    _open(page, served, match=match)
    page.locator("#query").fill(text)
    expect(page.locator("#matches").get_by_role("option").nth(len(found) - 1)).to_be_visible()
    options = [
        option.locator(".token").text_content() for option in page.locator("#matches").get_by_role("option").all()
    ]
    assert options[: len(found)] == found


def test_a_search_without_a_match_says_so(page: Page, served: Served, expected_errors: list[str]):
    expected_errors += ["404"]
    _open(page, served)
    page.locator("#query").fill("nothing like it")
    expect(page.locator("#search-status")).to_have_text("0 tokens")
    page.locator("#query").fill("id:99999")
    expect(page.locator("#search-status")).to_contain_text("outside the vocabulary")
    page.locator("#query").fill("word29")
    expect(page.locator("#search-status")).to_have_text("11 tokens")
    page.locator("#query").fill("id:99999")
    expect(page.locator("#search-status")).to_contain_text("outside the vocabulary")
    page.keyboard.press("Enter")
    page.wait_for_timeout(300)
    expect(page.locator("#card h3", has_text="word29")).to_have_count(0)


def test_a_walk_can_be_gone_back_and_is_in_the_link(page: Page, served: Served):
    _open(page, served, token=17, k=4)
    first, second = served.words.nearest(17, 1)[0], served.words.nearest(served.words.nearest(17, 1)[0].id, 2)
    page.locator("#card .neighbors button").first.click()
    expect(page.locator("#card h3")).to_have_text(first.text)
    assert _listed(page) == _shown(served.words, first.id, 4)
    step = next(neighbor for neighbor in second if neighbor.id != 17)
    page.locator("#card .neighbors button", has_text=re.compile(f"{step.text}$")).click()
    expect(page.locator("#card h3")).to_have_text(step.text)
    expect(page.locator("#trail button")).to_have_text([first.text])
    page.reload(wait_until="domcontentloaded")
    expect(page.locator("#card h3")).to_have_text(step.text)
    expect(page.locator("#trail button")).to_have_text([first.text])
    page.go_back()
    expect(page.locator("#card h3")).to_have_text(first.text)
    page.go_back()
    expect(page.locator("#card h3")).to_have_text("▁word17")


@pytest.mark.parametrize("clipboard", ["clipboard", "event"])
def test_odd_tokens_are_shown_as_text_and_copied_exactly(page: Page, served: Served, clipboard: str):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=served.url)
    if clipboard == "event":  # as where the service is reached by plain HTTP
        page.add_init_script("Clipboard.prototype.writeText = () => Promise.reject(new Error('none'))")
    _open(page, served)
    for name, token in ODD.items():
        _go(page, bank=f"words@{served.words.id}", token=ODD_ID[name])
        expect(page.locator("#card h3")).to_have_text(served.words.vocab.display(ODD_ID[name]))
        expect(page.locator("#card .bytes code")).to_have_text(token.hex(" "))
        page.get_by_role("button", name="Copy hex").click()
        expect(page.get_by_role("button", name="Copy hex")).to_have_attribute("data-done", "yes")
        assert page.evaluate("navigator.clipboard.readText()") == f"hex:{token.hex()}"
        try:
            text = token.decode("utf-8")
        except UnicodeDecodeError:
            expect(page.get_by_role("button", name="Copy text")).to_have_count(0)
            continue
        if "\0" in text:  # Chromium cuts texts at a NUL when they are read from the clipboard
            continue
        page.get_by_role("button", name="Copy text").click()
        expect(page.get_by_role("button", name="Copy text")).to_have_attribute("data-done", "yes")
        assert page.evaluate("navigator.clipboard.readText()") == text
    assert page.evaluate("window.hacked") is None


def test_odd_tokens_are_text_in_every_panel(page: Page, served: Served):
    ids = ",".join(map(str, ODD_ID.values()))
    for tab in ("map", "heat", "compare", "targets"):
        _open(
            page,
            served,
            token=ODD_ID["html"],
            set=ids,
            other=f"again@{served.again.id}",
            tab=tab,
            text="%3Cimg%20src=x%3E",
        )
        expect(page.locator(f"#panel-{tab} .copies").first).to_be_visible()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0


def _corner(page: Page, x: int, y: int) -> tuple[float, float]:
    """The pixel of a corner of the square from −1 to 1 on the map."""
    box = page.locator(".map canvas").first.bounding_box()
    assert box is not None
    unit = 0.47 * min(box["width"], box["height"])
    return box["x"] + box["width"] / 2 + x * unit, box["y"] + box["height"] / 2 - y * unit


def test_the_map_and_the_card_are_linked(page: Page, served: Served):
    _open(page, served)
    expect(page.locator(".legend")).to_contain_text("ok")
    page.mouse.move(*_corner(page, 1, 1))
    expect(page.locator(".tip")).to_contain_text("▁word3")
    page.mouse.click(*_corner(page, 1, 1))
    expect(page.locator("#card h3")).to_have_text("▁word3")
    expect(page.locator("#panel-map details")).to_be_visible()
    page.get_by_label("Color by").select_option("cost")
    expect(page.locator(".legend")).to_contain_text(f"to {served.words.nearest(3, 1)[0].cost:.4f}")
    page.get_by_label("Color by").select_option("count")
    expect(page.locator(".legend")).to_have_text("This bank has no counts.")
    page.get_by_role("button", name="Zoom in").click()
    page.mouse.click(*_corner(page, 1, 1))
    page.get_by_role("button", name="Show all").click()
    page.mouse.click(*_corner(page, -1, 1))
    expect(page.locator("#card h3")).to_have_text("▁word2")


def test_the_map_has_the_colors_of_its_legend(page: Page, served: Served):
    _open(page, served)
    expect(page.locator(".legend")).to_contain_text("ok")
    page.wait_for_timeout(300)
    x, y = _corner(page, 1, 1)
    image = Image.open(BytesIO(page.screenshot())).convert("RGB")
    swatch = page.locator(".swatch").first.evaluate("element => getComputedStyle(element).backgroundColor")
    expected = [int(part) for part in re.findall(r"\d+", swatch)]
    # The points let some of the white ground through.
    opacity = 200 / 255
    blended = [opacity * part + (1 - opacity) * 255 for part in expected]
    assert np.abs(np.array(image.getpixel((round(x), round(y)))) - blended).max() <= 4
    assert image.getpixel((round(x) + 12, round(y))) == (255, 255, 255)


def test_without_webgl_the_lists_work(page: Page, served: Served):
    page.add_init_script(
        "const own = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {"
        " return kind.startsWith('webgl') ? null : own.call(this, kind, ...rest); }"
    )
    _open(page, served, token=17)
    expect(page.locator("#panel-map")).to_contain_text("This browser has no WebGL")
    assert _listed(page) == _shown(served.words, 17)


def test_a_bank_without_a_map_says_how_to_make_one(page: Page, served: Served, expected_errors: list[str]):
    expected_errors += ["404"]
    page.goto(f"{served.url}/#bank=again", wait_until="domcontentloaded")
    expect(page.locator("#panel-map")).to_contain_text(f"costbank layout again@{served.again.id}")


def test_the_costs_of_a_set_are_those_of_the_library(page: Page, served: Served):
    _open(page, served, token=17, k=3, tab="heat")
    expect(page.locator("#panel-heat")).to_contain_text("Add tokens with")
    expect(page.locator("#card .neighbors button")).to_have_count(3)
    page.get_by_role("button", name="Add all to set").click()
    ids = [17, *(neighbor.id for neighbor in served.words.nearest(17, 3))]
    cells = page.locator(".heat tbody td")
    expect(cells).to_have_count(16)
    costs = served.words.cost_matrix(ids, ids)
    shown = [float(text) for text in cells.all_text_contents()]
    assert np.abs(np.array(shown).reshape(4, 4) - costs).max() <= 0.005 + 1e-6
    title = page.locator(".heat tbody tr").nth(0).locator("td").nth(1).get_attribute("title")
    assert title is not None
    assert title.endswith(f"{costs[0, 1]:.4f}")
    page.get_by_role("button", name="Sort by similarity").click()
    page.get_by_role("button", name=f"Remove {served.words.vocab.display(ids[2])}").click()
    expect(cells).to_have_count(9)
    page.get_by_role("button", name="Remove all").click()
    expect(cells).to_have_count(0)


def test_two_banks_are_compared(page: Page, served: Served, expected_errors: list[str]):
    _open(page, served, token=17, tab="compare", k=50)
    page.get_by_label("Compare with").select_option(f"again@{served.again.id}")
    ours, theirs = (
        [neighbor.id for neighbor in bank.nearest(17, 50)] for bank in (served.words, served.again)
    )  # fmt: skip
    expect(page.locator("#panel-compare strong").first).to_have_text(f"{overlap(ours, theirs):.2f}")
    expect(page.locator(".sides .shared")).to_have_count(2 * len(set(ours) & set(theirs)))
    page.get_by_label("Compare with").select_option(f"other@{served.other.id}")
    expected_errors += ["404"]
    expect(page.locator("#panel-compare .problem")).to_contain_text("other has no token with the bytes of ▁word17")
    page.evaluate("location.hash = location.hash.replace('token=17', 'token=7').replace('k=50', 'k=5')")
    expect(page.locator("#panel-compare")).to_contain_text("different tokenizers")
    names = [text for text, _ in _shown(served.other, 2, 5)]
    expect(page.locator(".sides section").nth(1).locator(".neighbors .token")).to_have_text(names)


def test_what_a_label_costs(page: Page, served: Served):
    _open(page, served, tab="targets")
    page.locator("#label-text").fill("word3 king")
    expect(page.locator(".targets > li")).to_have_count(2)
    expect(page.locator(".targets > li").nth(1)).to_contain_text("▁king")
    expect(page.locator(".targets > li").first).to_contain_text("keeps 90.0 %")
    nearest = served.words.nearest(3, 1)[0]
    first = page.locator(".targets > li").first.locator(".neighbors button").first
    expect(first).to_contain_text(f"cost {nearest.cost:.4f}")
    page.locator("#label-text").fill("€")
    expect(page.locator("#panel-targets")).to_contain_text("e282ac")


_DELAYED = """([part, ms]) => {
  const own = window.fetch;
  window.fetch = async (resource, ...rest) => {
    if (String(resource).includes(part)) await new Promise((done) => setTimeout(done, ms));
    return own(resource, ...rest);
  };
}"""


def _go(page: Page, **state: object) -> None:
    page.evaluate("state => { location.hash = state }", "&".join(f"{name}={value}" for name, value in state.items()))


def test_a_slow_answer_about_another_bank_is_not_shown(page: Page, served: Served):
    words, again = (f"{bank.name}@{bank.id}" for bank in (served.words, served.again))
    add_map(served.again, np.full((len(TOKENS), 2), 0.5, np.float32))
    page.goto(f"{served.url}/#bank={words}&token=17", wait_until="domcontentloaded")
    expect(page.locator(".legend")).to_contain_text("ok")
    page.evaluate(_DELAYED, ["again", 1_500])
    for tab in ("map", "heat"):
        _go(page, bank=words, token=17, tab=tab, set="17,4", trail="4,17")
        expect(page.locator(f"#panel-{tab} .copies")).to_be_visible()
        _go(page, bank=again, token=17, tab=tab, set="17,4", trail="4,17")
        expect(page.locator("#panel-map canvas")).to_have_count(0)  # nothing of the other bank can be pointed at
        _go(page, bank=words, token=17, tab=tab, set="" if tab == "heat" else "17,4", trail="4,17")
        page.wait_for_timeout(2_500)
        expect(page.locator("#bank-facts")).to_contain_text("313")
        assert _listed(page) == _shown(served.words, 17)
        if tab == "heat":
            expect(page.locator(".heat")).to_have_count(0)
        else:
            page.mouse.click(*_corner(page, 1, 1))
            expect(page.locator("#card h3")).to_have_text("▁word3")


def test_a_right_click_on_the_map_chooses_nothing(page: Page, served: Served):
    _open(page, served, token=17)
    expect(page.locator(".legend")).to_contain_text("ok")
    page.mouse.click(*_corner(page, 1, 1), button="right")
    page.wait_for_timeout(300)
    expect(page.locator("#card h3")).to_have_text("▁word17")


def test_a_link_to_a_bank_that_is_gone_can_be_left(page: Page, served: Served, expected_errors: list[str]):
    expected_errors += ["404"]
    page.goto(f"{served.url}/#bank=my-old-bank&tab=nothing&color=nothing", wait_until="domcontentloaded")
    expect(page.locator("#card .problem")).to_contain_text("there is no bank my-old-bank")
    page.locator("#bank").select_option(f"words@{served.words.id}")
    expect(page.locator(".legend")).to_contain_text("ok")


def _copied(page: Page, panel: str, button: str) -> str:
    page.locator(panel).get_by_role("button", name=button).click()
    expect(page.locator("#announcement")).to_have_text(f"{button}: copied")
    return page.evaluate("navigator.clipboard.readText()")


def test_commands_that_are_copied_give_what_the_page_shows(page: Page, served: Served, monkeypatch: pytest.MonkeyPatch):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=served.url)
    banks = {f"{served.url}/v1/banks/{bank.name}@{bank.id}": bank for bank in (served.words, served.again)}
    monkeypatch.setattr(costbank, "open_bank", banks.__getitem__, raising=False)

    def run(code: str) -> list[tuple[object, ...]]:
        printed: list[tuple[object, ...]] = []
        exec(code, {"print": lambda *values: printed.append(values)})
        return printed

    again = f"again@{served.again.id}"
    _open(page, served, token=17, k=10, set="17,4", other=again, tab="heat")
    expect(page.locator("#card .neighbors button")).to_have_count(10)
    assert [str(line).split() for (line,) in run(_copied(page, "#card", "Copy as Python"))] == [
        [f"{neighbor.cost:.4f}", str(neighbor.id), neighbor.text] for neighbor in served.words.nearest(17, 10)
    ]
    query = f"curl '{served.url}/v1/banks/words@{served.words.id}"
    assert _copied(page, "#card", "Copy as curl") == f"{query}/nearest?token_id=17&k=10'"
    assert _copied(page, "#panel-heat", "Copy as curl") == f"{query}/costs?rows=17,4&cols=17,4'"
    ((costs,),) = run(_copied(page, "#panel-heat", "Copy as Python"))
    assert np.array_equal(np.asarray(costs), served.words.cost_matrix([17, 4], [17, 4]))
    page.get_by_role("tab", name="Compare banks").click()
    expect(page.locator(".sides section")).to_have_count(2)
    of_banks = dict(run(_copied(page, "#panel-compare", "Copy as Python")))
    assert of_banks[again] == [neighbor.text for neighbor in served.again.nearest(17, 10)]
    page.get_by_role("tab", name="What a label costs").click()
    expect(page.locator(".targets > li")).to_have_count(1)
    ((largest,),) = run(_copied(page, "#panel-targets", "Copy as Python"))
    shown = [float(text.removesuffix(" %")) for text in page.locator(".targets .cost").all_text_contents()]
    assert shown == pytest.approx((100 * largest.values[0]).tolist(), rel=0.06)
    page.get_by_role("tab", name="Map").click()
    expect(page.locator(".legend")).to_contain_text("ok")
    assert " -o array.npy " in _copied(page, "#panel-map", "Copy as curl")
    run(_copied(page, "#panel-map", "Copy as Python") + f"assert xy.shape == ({len(TOKENS)}, 2)")


def test_errors_of_the_service_are_said(page: Page, served: Served, expected_errors: list[str]):
    expected_errors += ["404", "400", "ERR_FAILED"]
    page.goto(f"{served.url}/#bank=my-old-bank", wait_until="domcontentloaded")
    expect(page.locator("#card .problem")).to_contain_text("there is no bank my-old-bank")
    _open(page, served, token=99_999)
    expect(page.locator("#card .problem")).to_contain_text("outside the vocabulary")
    page.route("**/nearest?*", lambda route: route.abort())
    page.evaluate("location.hash = 'bank=words&token=17'")
    expect(page.locator("#card .problem")).to_contain_text("The service did not answer")


def test_a_key_can_be_given(page: Page, served: Served, expected_errors: list[str]):
    expected_errors += ["401"]
    with serving(Settings(store=served.store, port=0, api_key="schlüssel", refresh_ms=0)) as url:  # type: ignore[arg-type]
        page.goto(f"{url}/#bank=words&token=17", wait_until="domcontentloaded")
        expect(page.locator("#card .problem")).to_contain_text("requires a key")
        page.get_by_label("This service requires a key").fill("schlüssel")
        page.get_by_role("button", name="Use this key").click()
        expect(page.locator("#card h3")).to_have_text("▁word17")
        page.goto("about:blank")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_is_accessible_and_fits_a_narrow_screen(page: Page, served: Served, scheme: str):
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": 360, "height": 740})
    for tab in ("map", "heat", "compare", "targets"):
        _open(
            page, served, token=17, trail="17,4", set="17,4,5", other=f"again@{served.again.id}", tab=tab, text="king"
        )
        expect(page.locator(f"#panel-{tab} .copies").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), tab
        violations = Axe().run(page).response["violations"]
        assert not [(one["id"], [node["html"] for node in one["nodes"]]) for one in violations], tab


def test_a_service_without_banks_says_what_to_do(page: Page, tmp_path: Path):
    with serving(Settings(store=tmp_path, port=0)) as url:
        page.goto(url, wait_until="domcontentloaded")
        expect(page.locator("#card")).to_contain_text("The service has no banks yet")
        page.goto("about:blank")


@pytest.mark.slow
def test_a_bank_of_128000_tokens(page: Page, tmp_path: Path):
    size, rng = 128_000, np.random.default_rng(0)
    tokens = [b" t%d" % i for i in range(size)]
    bank = add_map(
        write_bank(tmp_path / "large", tokens, k=10, is_exact=False), rng.standard_normal((size, 2)).astype(np.float32)
    )
    with serving(Settings(store=tmp_path, port=0)) as url:
        page.goto(f"{url}/#token=77", wait_until="domcontentloaded")
        expect(page.locator("#card .neighbors button")).to_have_count(10)
        expect(page.locator(".legend")).to_contain_text("ok")
        page.locator("#card .neighbors button").first.click()
        first = bank.nearest(77, 1)[0]
        expect(page.locator("#card h3")).to_have_text(first.text)
        assert _listed(page) == _shown(bank, first.id)
        page.locator("#query").fill("t12799")
        expect(page.locator("#search-status")).to_have_text("11 tokens")
        page.goto("about:blank")
