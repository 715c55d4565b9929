"""How long the page of the service takes to show neighbors after a click, with a bank of 128,000 tokens.

    python -m benchmarks.explorer

The bank has random unit rows, a table of 64 arbitrary neighbors with their true costs, and a random map: what is
measured is the service, the browser (Debian's Chromium without a GPU) and the page, which redraws the map as well. The
time is from the click to the first list of the new token's neighbors in the document. The same walk is taken in a bank
of 8,000 tokens in the same run; the ratio says what the size costs.
"""

import os
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from costbank_service import Settings, serving
from playwright.sync_api import Browser

from benchmarks.record import record
from tests.service.banks import add_map, write_bank
from tests.web.pages import chromium_browser

_CLICKS = 20
_ROUNDS = 3
_SIZES = (8_000, 128_000)
_WALK = """async (clicks) => {
  const times = [];
  const heading = () => document.querySelector("#card h3").textContent;
  for (let click = 0; click < clicks; click++) {
    const buttons = document.querySelectorAll("#card .neighbors button"), before = heading();
    const began = performance.now();
    const shown = new Promise((done) => {
      const observer = new MutationObserver(() => {
        if (heading() !== before && document.querySelector("#card .neighbors button")) {
          observer.disconnect();
          done();
        }
      });
      observer.observe(document.getElementById("card"), { childList: true, subtree: true });
    });
    buttons[click % buttons.length].click();
    await shown;
    times.push(performance.now() - began);
    await new Promise((done) => setTimeout(done, 250));
  }
  return times;
}"""


def run() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for size in _SIZES:
            _write(Path(folder) / f"of-{size}", size)
        with serving(Settings(store=Path(folder), port=0)) as url, chromium_browser() as browser:
            # Alternately, so that both sizes meet the same load of the machine.
            rounds = [[_times(browser, f"{url}/#bank=of-{size}&token=77") for size in _SIZES] for _ in range(_ROUNDS)]
    note = f"{_CLICKS} clicks a round, {os.cpu_count()} cores, software WebGL"
    small, large = zip(*rounds, strict=True)
    record("explorer", "click to first neighbors at 128,000 tokens: median", "ms", [median(times) for times in large],
           "<= 200", ("playwright",), note)  # fmt: skip
    record("explorer", "click to first neighbors at 128,000 tokens: slowest", "ms", [max(times) for times in large], "",
           ("playwright",), note)  # fmt: skip
    ratios = [median(many) / median(few) for few, many in zip(small, large, strict=True)]
    record("explorer", "click to first neighbors: 128,000 tokens / 8,000", "ratio", ratios, "", ("playwright",), note)


def _write(directory: Path, size: int) -> None:
    bank = write_bank(directory, [b" t%d" % i for i in range(size)], k=64, is_exact=False)
    add_map(bank, np.random.default_rng(0).standard_normal((size, 2)).astype(np.float32))


def _times(browser: Browser, url: str) -> list[float]:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(300_000)
    page.goto(url, wait_until="domcontentloaded")
    page.locator(".legend .swatch").first.wait_for()  # the map is there, too
    page.wait_for_timeout(1_000)
    times = page.evaluate(_WALK, _CLICKS)
    page.close()
    return times


if __name__ == "__main__":
    run()
