"""Pictures of the service's page: `python -m docs.generators.screenshots` takes them with Debian's Chromium.

The bank is that of `docs.generators.picture`, with a map. It takes about two minutes.
"""

import sys
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Literal

from costbank_service import Settings, serving
from PIL import Image
from playwright.sync_api import expect

from costbank.analysis.layout import map_bank
from costbank.bank import Bank
from costbank.bank.maps import add_map
from docs.generators.picture import LABEL, build_bank
from tests.web.pages import chromium_browser

ASSETS = Path(__file__).parents[1] / "assets"
_SIZE = (1180, 720)
_COLORS = 96
_SENTENCE = "the gradient of the matrix"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        bank = build_bank(Path(folder))
        token_map = map_bank(bank)
        add_map(bank.path, token_map.xy, token_map.facts)
        _take(Bank(bank.path))


def _take(bank: Bank) -> None:
    token = bank.vocab.find(LABEL)
    views: dict[str, tuple[Literal["light", "dark"], str, str]] = {
        "explorer-map": ("light", f"token={token}&color=cost", ".legend .ramp"),
        "explorer-targets": ("dark", f"token={token}&tab=targets&text={_SENTENCE}", ".targets li"),
    }
    expect.set_options(timeout=120_000)
    with serving(Settings(store=bank.path.parents[1], port=0)) as url, chromium_browser() as browser:
        for name, (scheme, state, ready) in views.items():
            width, height = _SIZE
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(f"{url}/#bank={bank.name}&{state}", wait_until="domcontentloaded")
            expect(page.locator(ready).first).to_be_visible()
            page.wait_for_timeout(2_000)  # the map is drawn after its legend
            image = Image.open(BytesIO(page.screenshot())).convert("RGB")
            page.close()
            image.quantize(_COLORS, dither=Image.Dither.NONE).save(ASSETS / f"{name}.png", optimize=True)
            print(ASSETS / f"{name}.png", file=sys.stderr)


if __name__ == "__main__":
    main()
