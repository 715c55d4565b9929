"""What is trained: the sizes of a setting, and the arms that are compared in it."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

__all__ = ["ARMS", "LABEL_GROUPS", "SETTINGS", "Arm", "Setting"]

LABEL_GROUPS = {"seldom": (0, 5), "at times": (5, 50), "often": (50, 500), "most often": (500, 1 << 62)}
"""Labels by how often they occur in the training text: from the first number to below the second."""


@dataclass(frozen=True)
class Setting:
    """A model, an amount of text, and a length of training.

    Attributes:
        pretrained: whether a pretrained model is trained further, with its own tokenizer; `vocab`, `layers`, `dim` and
            `dropout` are then the model's.
        vocab: the pieces of the tokenizer, which is trained on training text only, never on held-out text.
        train_tokens: the tokens of the training text, which are repeated.
        tokenizer_tokens: the tokenizer is trained on the first part of the training text, 5 bytes for each of these
            tokens; 0 means `train_tokens`. Runs with different amounts of text can be compared if this is the same.
        layers, dim: the decoder's size; a head of attention has 32 dimensions.
        context: tokens of a sequence.
        batch: sequences of a step.
        steps: optimizer steps.
        lr: the largest learning rate.
        warmup: the steps over which the learning rate rises; then it falls by a cosine to a tenth.
        weight_decay: of AdamW.
        dropout: of the residual branches.
        eval_tokens: tokens of the validation, of the test and of the other text.
        base_steps: with a number above 0, a model is first trained on another text for so many steps.
        base_tokens: the tokens of that text, which are repeated.
        base_lr: the largest learning rate on that text.
        prompts: whether the text is pairs for fine-tuning, `PROMPT<TAB>ANSWER` per line. Losses and measures are then
            those of the answers' tokens alone; the tokens' frequencies and the bank are those of the whole text.
    """

    vocab: int = 8_000
    train_tokens: int = 200_000
    layers: int = 2
    dim: int = 128
    context: int = 64
    batch: int = 16
    steps: int = 900
    lr: float = 2e-3
    weight_decay: float = 0.1
    dropout: float = 0.0
    eval_tokens: int = 60_000
    warmup: int = 50
    pretrained: bool = False
    base_steps: int = 0
    base_tokens: int = 600_000
    base_lr: float = 2e-3
    prompts: bool = False
    tokenizer_tokens: int = 0

    @property
    def epochs(self) -> float:
        return self.steps * self.batch * self.context / self.train_tokens


@dataclass(frozen=True)
class Arm:
    """A loss, and the bank that it uses.

    Attributes:
        options: of `EMOOptions`.
        bank: settings of the co-occurrence bank by their paths; None for losses without a bank.
        head: for a model that was trained before, the transforms of a bank of its own head, instead of a co-occurrence
            bank.
        smoothing: of `SmoothingOptions`, for `neighbor_smoothing`.
        form: the form of the costs, for other objectives with costs.
        bank_text: the text of the bank: the training tokens alone, all text but validation and test, or the text of the
            base model.
        shuffled: whether the rows of the bank are permuted among the tokens: a control. A start from the bank and the
            loss have permutations of their own.
        unigram_smoothing: label smoothing towards the tokens' frequencies instead of towards all tokens equally.
        confidence_penalty: this times the entropy of the predictions is subtracted from the loss.
        fade: the weight falls linearly to 0 after this share of the steps.
        replaced: share of input tokens that are replaced, by neighbors, by random tokens or by frequent ones.
        replaced_by: how.
        starts_from_bank: whether the embedding starts from the bank's vectors, and with it the tied head. Their
            rotation into the model's width is the same for all seeds.
        trains: whether the model is trained at all.
    """

    options: dict[str, Any] = field(default_factory=lambda: {"objective": "ce"})
    bank: dict[str, Any] | None = None
    head: tuple[str, ...] | None = None
    smoothing: dict[str, Any] = field(default_factory=dict)
    form: Literal["dense", "neighbors"] = "dense"
    bank_text: Literal["train", "all", "base"] = "train"
    shuffled: bool = False
    unigram_smoothing: float = 0.0
    confidence_penalty: float = 0.0
    fade: float = 0.0
    replaced: float = 0.0
    replaced_by: Literal["neighbors", "random", "unigram"] = "neighbors"
    starts_from_bank: bool = False
    trains: bool = True


SETTINGS = {
    "small": Setting(),
    "more-data": Setting(train_tokens=400_000),
    "larger": Setting(layers=3, dim=192, context=128, train_tokens=400_000),
    "one-epoch": Setting(train_tokens=900_000, steps=878),
    "continued": Setting(
        pretrained=True, train_tokens=24_000, context=256, batch=4, steps=48, lr=1e-4, warmup=5, eval_tokens=12_000
    ),
    "continued-small": Setting(train_tokens=60_000, steps=180, lr=1e-3, warmup=10, base_steps=1_200),
    "finetune-small": Setting(train_tokens=60_000, steps=180, lr=1e-3, warmup=10, base_steps=1_200, prompts=True),
    "tiny": Setting(vocab=400, train_tokens=6_000, layers=1, dim=32, context=32, batch=8, steps=20, eval_tokens=2_000),
}

LEFT = {"dim": 64, "side": "left", "window": 2, "min_count": 1}
SYMMETRIC = {"dim": 64, "min_count": 1, "window": 5, "side": "both"}
_NEIGHBORS = {"objective": "neighbor_smoothing", "mixing": "interpolate", "weight": 0.1}
_RECOMMENDED = Arm(_NEIGHBORS, bank=LEFT, smoothing={"unigram_power": 1.0})
# The arms that were tried before it was known that the tokens' counts help.
_WITHOUT_COUNTS = replace(_RECOMMENDED, smoothing={"unigram_power": 0.0})


def _emo(mixing: str, objective: str = "emo", **options: Any) -> Arm:
    return Arm({"objective": objective, "mixing": mixing, **options}, bank=LEFT)


def _smoothed(**settings: Any) -> Arm:
    return replace(_RECOMMENDED, smoothing={"unigram_power": 0.0, **settings})


def _weighted(weight: float, arm: Arm) -> Arm:
    return replace(arm, options=_NEIGHBORS | {"weight": weight})


def _with_uniform(share: float, arm: Arm) -> Arm:
    return replace(arm, options=arm.options | {"label_smoothing": share})


def _with_bank(**settings: Any) -> Arm:
    return replace(_WITHOUT_COUNTS, bank={"dim": 64, "min_count": 1, **settings})


def _of_head(weight: float, **settings: Any) -> Arm:
    return Arm(_NEIGHBORS | {"weight": weight}, head=("center",), smoothing=settings)


ARMS: dict[str, Arm] = {
    "ce": Arm(),
    "recommended": _RECOMMENDED,
    "label-smoothing": Arm({"objective": "ce", "label_smoothing": 0.1}),
    "unigram-smoothing": Arm(unigram_smoothing=0.1),
    "shuffled": replace(_RECOMMENDED, shuffled=True),
    "recommended-100": _smoothed(unigram_power=1.0, perplexity=100.0),
    "recommended-2000": _smoothed(unigram_power=1.0, perplexity=2_000.0),
    "recommended-0.15": _weighted(0.15, _RECOMMENDED),
    "recommended-0.2": _weighted(0.2, _RECOMMENDED),
    "recommended-uniform-0.02": _with_uniform(0.02, _RECOMMENDED),
    "recommended-uniform-0.05": _with_uniform(0.05, _RECOMMENDED),
    "recommended-all-text": replace(_RECOMMENDED, bank_text="all"),
    "recommended-all-text-100": replace(_smoothed(unigram_power=1.0, perplexity=100.0), bank_text="all"),
    "recommended-symmetric-128": replace(_RECOMMENDED, bank={"side": "both", "window": 5}),
    "recommended-left-1": replace(_RECOMMENDED, bank=LEFT | {"window": 1}),
    "recommended-left-5": replace(_RECOMMENDED, bank=LEFT | {"window": 5}),
    "recommended-all-text-left-5": replace(_RECOMMENDED, bank=LEFT | {"window": 5}, bank_text="all"),
    "recommended-dim-128": replace(_RECOMMENDED, bank=LEFT | {"dim": 128}),
    "recommended-all-text-symmetric": replace(_RECOMMENDED, bank=SYMMETRIC, bank_text="all"),
    "recommended-symmetric": replace(_RECOMMENDED, bank=SYMMETRIC),
    "unigram-power-0.5": _smoothed(unigram_power=0.5),
    "without-counts": _WITHOUT_COUNTS,
    "without-counts-shuffled": replace(_WITHOUT_COUNTS, shuffled=True),
    "without-counts-0.05": _weighted(0.05, _WITHOUT_COUNTS),
    "without-counts-0.2": _weighted(0.2, _WITHOUT_COUNTS),
    "without-counts-100": _smoothed(perplexity=100.0),
    "without-counts-2000": _smoothed(perplexity=2_000.0),
    "with-label": _smoothed(label=True, temperature=0.1),
    "neighbors-64": _smoothed(k=64, perplexity=16.0),
    "draws-64": _smoothed(unigram_power=1.0, draws=64),
    "function-words-exempt": _smoothed(exempt_most_frequent=100),
    "gated-10": replace(_RECOMMENDED, options=_NEIGHBORS | {"entropy_gate": 10.0}),
    "gated-200": replace(_RECOMMENDED, options=_NEIGHBORS | {"entropy_gate": 200.0, "weight": 0.15}),
    "fade": replace(_weighted(0.2, _WITHOUT_COUNTS), fade=0.9),
    "bank-symmetric": _with_bank(side="both", window=5),
    "bank-both-sides": _with_bank(side="both", window=1, positions=True),
    "bank-trigrams": _with_bank(side="left", window=1, ngram=2),
    "bank-window-4": _with_bank(side="left", window=4),
    "bank-min-count-5": replace(_WITHOUT_COUNTS, bank=LEFT | {"min_count": 5}),
    "bank-dim-32": replace(_WITHOUT_COUNTS, bank=LEFT | {"dim": 32}),
    "bank-dim-128": replace(_WITHOUT_COUNTS, bank=LEFT | {"dim": 128}),
    "bank-dim-8": replace(_WITHOUT_COUNTS, bank=LEFT | {"dim": 8}),
    "bank-left-1": _with_bank(side="left", window=1),
    "bank-right": _with_bank(side="right", window=2),
    "bank-all-text": replace(_WITHOUT_COUNTS, bank_text="all"),
    "bank-all-text-symmetric": replace(_with_bank(side="both", window=5), bank_text="all"),
    "label-smoothing-0.05": Arm({"objective": "ce", "label_smoothing": 0.05}),
    "label-smoothing-0.2": Arm({"objective": "ce", "label_smoothing": 0.2}),
    "confidence-penalty": Arm(confidence_penalty=0.1),
    "emo1-clamped": _emo("emo1_clamped"),
    "emo1": _emo("emo1"),
    "emo2": _emo("emo2"),
    "emo-fixed-1": _emo("fixed", weight=1.0),
    "delta-fixed-1": replace(_emo("fixed", "delta", weight=1.0), bank=None),
    "kernel": _emo("fixed", "kernel", weight=1.0),
    "log": _emo("interpolate", "log", weight=0.1),
    "tailr": Arm({"objective": "tailr", "tailr_gamma": 0.1, "tailr_least": 0.2}),
    "mixce": Arm({"objective": "mixce", "mixce_ratio": 0.5}),
    "d2gpo": replace(_emo("interpolate", "d2gpo", weight=0.1), form="neighbors"),
    "input-neighbors": Arm(bank=LEFT, replaced=0.15),
    "input-random": Arm(replaced=0.15, replaced_by="random"),
    "input-unigram": Arm(replaced=0.15, replaced_by="unigram"),
    "input-neighbors-recommended": replace(_RECOMMENDED, replaced=0.15),
    "start-from-bank": Arm(bank=LEFT, starts_from_bank=True),
    "start-from-bank-recommended": replace(_RECOMMENDED, starts_from_bank=True),
    "start-from-all-text-recommended": replace(_RECOMMENDED, starts_from_bank=True, bank_text="all"),
    "start-from-symmetric-recommended": replace(_RECOMMENDED, starts_from_bank=True, bank=SYMMETRIC),
    "start-from-shuffled": Arm(bank=LEFT, starts_from_bank=True, shuffled=True),
    "start-from-shuffled-recommended": replace(_RECOMMENDED, starts_from_bank=True, shuffled=True),
    "untrained": Arm(trains=False),
    "head-all": _of_head(0.1),
    "head-all-0.05": _of_head(0.05),
    "head-all-16": _of_head(0.1, perplexity=16.0),
    "head-64": _of_head(0.1, k=64),
    "head-64-0.05": _of_head(0.05, k=64),
    "head-64-0.05-shuffled": replace(_of_head(0.05, k=64), shuffled=True),
    "head-64-with-label": _of_head(0.1, k=64, label=True),
    "head-all-raw": replace(_of_head(0.1), head=()),
    "head-64-raw": replace(_of_head(0.05, k=64), head=()),
    "base-text": replace(_RECOMMENDED, bank_text="base"),
    "base-text-shuffled": replace(_RECOMMENDED, bank_text="base", shuffled=True),
    "base-text-0.05": replace(_weighted(0.05, _RECOMMENDED), bank_text="base"),
    "base-text-64-0.05": replace(
        _RECOMMENDED, bank_text="base", options=_NEIGHBORS | {"weight": 0.05}, smoothing={"k": 64}
    ),
    "unigram-smoothing-0.05": Arm(unigram_smoothing=0.05),
    "head-emo1-clamped": replace(_emo("emo1_clamped"), bank=None, head=("center",)),
}
