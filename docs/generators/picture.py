"""The picture of what a wrong token costs: `python -m docs.generators.picture` draws docs/assets/costs.svg.

The costs are those of a co-occurrence bank, which is built here in half a minute from the docstrings of NumPy and
SciPy. With the versions of requirements.lock, the bank is the same on every machine.
"""

import sys
import tempfile
from dataclasses import dataclass
from html import escape
from pathlib import Path

from costbank_cli.demo.docstrings import gather_docstrings

import costbank
from costbank import Bank
from costbank.config import CooccurrenceConfig, CorpusConfig, build_config
from costbank.corpus.tokenizer_training import TrainingText, train_tokenizer
from costbank.progress import QuietProgress
from costbank.tokenizers.train import TrainingOptions

__all__ = ["LABEL", "Bars", "bars_of", "build_bank", "draw"]

PICTURE = Path(__file__).parents[1] / "assets" / "costs.svg"
LABEL = "gradient"
UNRELATED = ("thread", "string", "random")
SOURCE = "Costs of a bank counted from the docstrings of NumPy and SciPy (8,000 tokens)."

_WORD_LETTERS = 5
_WIDTH, _TOP, _ROW, _BAR = 760, 92, 30, 20
_LEFT, _UNIT, _GAP = 150, 220, 300
"""In pixels: where the first bars begin, the length of a cost of 1, and the distance to the second bars."""

_STYLE = """
text { font: 15px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f; }
.title { font-size: 18px; font-weight: 600; }
.head { font-weight: 600; }
.quiet { fill: #57606a; font-size: 13px; }
.token { text-anchor: end; }
.same { fill: #afb8c1; }
.cost { fill: #0f766e; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .quiet { fill: #9198a1; }
  .same { fill: #59636e; }
  .cost { fill: #2dd4bf; }
}
"""


@dataclass(frozen=True)
class Bars:
    """The costs of some words if `label` is right, related words first."""

    label: str
    costs: tuple[tuple[str, float], ...]


def bars_of(bank: Bank, label: str, unrelated: tuple[str, ...], related: int = 5) -> Bars:
    """The tokens with the lowest cost that are words of at least five letters, then the unrelated ones."""
    words = [(n.text[1:], n.cost) for n in bank.nearest(label, k=60) if _is_word(n.text)]
    return Bars(label, (*words[:related], *((token, bank.cost(token, label)) for token in unrelated)))


def _is_word(text: str) -> bool:
    return text.startswith("▁") and text[1:].isalpha() and len(text) > _WORD_LETTERS


def draw(bars: Bars) -> str:
    """The bars as an SVG for light and dark pages: the costs under cross-entropy, and under EMO."""
    bottom = _TOP + _ROW * len(bars.costs)
    title = f"The right token is “{bars.label}”. What does a wrong one cost?"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 40}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        _text(20, 32, title, "title"),
        _text(_LEFT, 70, "Cross-entropy: all the same", "head"),
        _text(_LEFT + _GAP, 70, "EMO: by distance", "head"),
    ]
    for number, (token, cost) in enumerate(bars.costs):
        y = _TOP + _ROW * number
        parts.append(_text(_LEFT - 12, y + 15, token, "token"))
        parts += [_bar(_LEFT, y, 1.0, "1", "same"), _bar(_LEFT + _GAP, y, cost, f"{cost:.2f}", "cost")]
    parts += [_text(20, bottom + 24, SOURCE, "quiet"), "</svg>\n"]
    return "\n".join(parts)


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(text)}</text>'


def _bar(x: float, y: float, cost: float, shown: str, kind: str) -> str:
    length = round(_UNIT * cost, 1)
    bar = f'<rect x="{x:g}" y="{y:g}" width="{length:g}" height="{_BAR}" rx="3" class="{kind}"/>'
    return bar + _text(x + length + 8, y + 15, shown, "quiet")


def build_bank(folder: Path) -> Bank:
    text, model, progress = folder / "docstrings.txt", folder / "docstrings.model", QuietProgress()
    gather_docstrings(text, ("numpy", "scipy"), progress)
    train_tokenizer(TrainingText((str(text),)), model, TrainingOptions(8_000), progress)
    config = build_config(
        source="cooccurrence",
        tokenizer=model,
        name="picture",
        store=folder / "store",
        cache=folder / "cache",
        corpus=CorpusConfig(files=(str(text),)),
        cooccurrence=CooccurrenceConfig(side="both", window=5),
    )
    return costbank.build(config, progress)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        bars = bars_of(build_bank(Path(folder)), LABEL, UNRELATED)
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(draw(bars), "utf-8")
    print(f"{PICTURE}: {bars}", file=sys.stderr)


if __name__ == "__main__":
    main()
