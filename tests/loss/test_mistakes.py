"""Wrong calls of the losses: each error names the mistake, and the hint says what to pass instead."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from costbank.errors import ShapeError, UsageError
from costbank.loss import DenseCosts, EMOLoss, EMOOptions, LinearEMOLoss, emo_loss, linear_emo_loss

VOCAB, DIM = 37, 6
LABELS = torch.arange(10).reshape(2, 5)
HIDDEN = torch.linspace(-1, 1, 60).reshape(2, 5, DIM)
HEAD = nn.Linear(DIM, VOCAB, bias=False)
LOGITS = HEAD(HIDDEN).detach()
COSTS = DenseCosts(nn.functional.normalize(torch.linspace(-1, 2, VOCAB * 4).sin().reshape(VOCAB, 4), dim=1))


@dataclass
class Output:
    """An output object such as a model returns."""

    logits: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple | None = None


def _emo(*arguments, **options):
    return lambda: EMOLoss(COSTS)(*arguments, **options)


def _linear(*arguments, **options):
    return lambda: LinearEMOLoss(COSTS)(*arguments, **options)


CASES = {
    "the head itself": (_linear(HIDDEN, HEAD, LABELS), "weight is of type Linear", "head.weight, and bias=head.bias"),
    "a module as bias": (_linear(HIDDEN, HEAD.weight, LABELS, bias=HEAD), "bias is of type Linear", "head.bias"),
    "an output for logits": (_emo(Output(LOGITS), LABELS), "logits are of type Output", "pass its tensor: .logits"),
    "a dict for logits": (_emo({"logits": LOGITS}, LABELS), "logits are of type dict", "['logits']"),
    "a tuple for logits": (_emo((LOGITS,), LABELS), "logits are of type tuple", "such as logits[0]"),
    "an array for logits": (_emo(LOGITS.numpy(), LABELS), "logits are of type ndarray", "torch.from_numpy(logits)"),
    "a model for logits": (_emo(HEAD, LABELS), "logits are of type Linear", "model(…).logits"),
    "an output for hidden": (
        _linear(Output(last_hidden_state=HIDDEN), HEAD.weight, LABELS), "hidden is of type", ".last_hidden_state",
    ),
    "all layers for hidden": (
        _linear(Output(hidden_states=(HIDDEN, HIDDEN)), HEAD.weight, LABELS), "type Output", ".hidden_states[-1]",
    ),
    "float labels": (_emo(LOGITS, LABELS.float()), "labels are torch.float32", "labels.long()"),
    "boolean labels": (_emo(LOGITS, LABELS > 3), "labels are torch.bool", "integer token ids"),
    "a list of labels": (_emo(LOGITS, LABELS.tolist()), "labels are of type list", "torch.tensor(labels)"),
    "an array of labels": (_emo(LOGITS, LABELS.numpy()), "labels are of type ndarray", "torch.from_numpy(labels)"),
    "no labels": (_emo(LOGITS, None), "labels are missing", "(logits, labels)"),
    "one-hot labels": (_emo(LOGITS, nn.functional.one_hot(LABELS, VOCAB)), "labels of shape [2, 5, 37]", "argmax(-1)"),
    "labels as distributions": (_emo(LOGITS, LOGITS.softmax(-1)), "labels of shape [2, 5, 37]", "SoftTargets"),
    "labels first": (_emo(LABELS, LOGITS), "logits are torch.int64", "then labels"),
    "a path for a bank": (lambda: EMOLoss("my-bank"), "costs are of type str", "give open_bank('my-bank')"),
    "a Path for a bank": (lambda: LinearEMOLoss(Path("a/b")), "costs are of type PosixPath", "open_bank('a/b')"),
    "a name for costs": (lambda: emo_loss(LOGITS, LABELS, "x"), "costs are of type str", "open_costs(open_bank('x'))"),
    "rows for costs": (lambda: emo_loss(LOGITS, LABELS, LOGITS), "costs are of type Tensor", "DenseCosts(rows)"),
    "a class for costs": (lambda: EMOLoss(DenseCosts), "costs are of type type", "open_bank(name)"),
    "hidden and weight swapped": (_linear(HEAD.weight, HIDDEN, LABELS), "look swapped", "then the head's weight"),
    "flat ones swapped": (
        _linear(HEAD.weight, HIDDEN.reshape(-1, DIM), LABELS.flatten()), "look swapped", "then the head's weight",
    ),
    "labels before the weight": (_linear(HIDDEN, LABELS, HEAD.weight), "the weight is torch.int64", "then labels"),
    "a transposed weight": (_linear(HIDDEN, HEAD.weight.T, LABELS), "looks transposed", "[vocab, dim]"),
    "logits for hidden states": (_linear(LOGITS, HEAD.weight, LABELS), "look like logits", "EMOLoss or emo_loss"),
    "logits and labels": (_linear(LOGITS, LABELS), "labels are missing", "for logits and labels, use EMOLoss"),
    "the vocabulary second": (_emo(LOGITS.transpose(1, 2), LABELS), "second dimension", "logits.movedim(1, -1)"),
    "weights as a list": (_emo(LOGITS, LABELS, token_weights=[1.0]), "token_weights are of type list", "torch.tensor"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "message", "hint"), CASES.values(), ids=CASES)
def test_a_mistake_is_named(call, message: str, hint: str):
    with pytest.raises((UsageError, ShapeError)) as caught:
        call()
    assert message in caught.value.message
    assert hint in caught.value.hint


def _of_bank(kind, *arguments):
    return lambda bank: kind(bank)(*arguments)


WIDE = nn.Linear(DIM, 2_100, bias=False)  # a padded head, with more rows than the bank has tokens
WIDE_LOGITS = WIDE(HIDDEN).detach()
ROWS, FEW = HIDDEN.reshape(-1, DIM), LABELS.flatten()
WITH_A_BANK = {
    "labels first": (_of_bank(EMOLoss, LABELS, WIDE_LOGITS), "logits are torch.int64", "then labels"),
    "labels without a batch first": (_of_bank(EMOLoss, FEW, WIDE_LOGITS[0]), "logits are torch.int64", "then labels"),
    "the vocabulary second": (_of_bank(EMOLoss, WIDE_LOGITS.transpose(1, 2), LABELS), "second", "movedim(1, -1)"),
    "labels of another shape": (_of_bank(EMOLoss, WIDE_LOGITS, FEW), "labels of shape [10] for [2, 5]", "[2, 5]"),
    "float labels": (_of_bank(EMOLoss, WIDE_LOGITS, LABELS.float()), "labels are torch.float32", "labels.long()"),
    "a list of labels": (_of_bank(EMOLoss, WIDE_LOGITS, FEW.tolist()), "type list", "torch.tensor(labels)"),
    "a transposed weight": (_of_bank(LinearEMOLoss, HIDDEN, WIDE.weight.T, LABELS), "looks transposed", "[vocab, dim]"),
    "labels second": (_of_bank(LinearEMOLoss, HIDDEN, LABELS, WIDE.weight), "the weight is torch.int64", "then labels"),
    "swapped": (_of_bank(LinearEMOLoss, WIDE.weight, ROWS, FEW), "look swapped", "then the head's weight"),
    "swapped, with a batch": (_of_bank(LinearEMOLoss, WIDE.weight, HIDDEN, LABELS), "look swapped", "then the head's"),
    "logits for hidden": (_of_bank(LinearEMOLoss, WIDE_LOGITS, WIDE.weight, LABELS), "look like logits", "EMOLoss"),
    "logits and labels": (_of_bank(LinearEMOLoss, WIDE_LOGITS, LABELS), "labels are missing", "use EMOLoss"),
    "the head itself": (_of_bank(LinearEMOLoss, HIDDEN, WIDE, LABELS), "weight is of type Linear", "head.weight"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "message", "hint"), WITH_A_BANK.values(), ids=WITH_A_BANK)
def test_a_mistake_is_named_before_a_bank_is_fitted_to_it(call, message: str, hint: str, news_bank):
    with pytest.raises((UsageError, ShapeError)) as caught:
        call(news_bank)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_bank_for_costs_is_pointed_to_the_module(news_bank):
    with pytest.raises(UsageError, match="costs are of type Bank") as caught:
        emo_loss(LOGITS, LABELS, news_bank)
    assert caught.value.hint == "give open_costs(bank), or use EMOLoss(bank, objective='emo')"


@pytest.mark.parametrize("tokens", [1, DIM, VOCAB, VOCAB + 1])
@pytest.mark.parametrize("dim", [DIM, VOCAB, VOCAB + 1])
def test_shapes_that_fit_are_never_taken_for_a_mistake(tokens: int, dim: int):
    hidden, weight = torch.ones(tokens, dim), torch.ones(VOCAB, dim)
    labels = torch.zeros(tokens, dtype=torch.long)
    for costs, options in ((COSTS, {}), (None, {"objective": "ce"})):
        loss = LinearEMOLoss(costs, **options)(hidden, weight, labels)
        assert torch.isfinite(loss)
    assert torch.isfinite(linear_emo_loss(hidden[:, None], weight, labels[:, None], COSTS))


def test_the_checks_take_no_time_worth_measuring():
    from timeit import timeit

    from costbank.loss.mistakes import check_kinds, refuse_other_shapes

    def checks() -> None:
        check_kinds(COSTS, hidden=HIDDEN, weight=HEAD.weight, labels=LABELS, bias=None, token_weights=None)
        refuse_other_shapes(HIDDEN, HEAD.weight, COSTS)

    call = _linear(HIDDEN, HEAD.weight, LABELS)
    call()
    assert min(timeit(checks, number=20) for _ in range(5)) < 0.2 * min(timeit(call, number=20) for _ in range(5))


def test_a_temperature_of_the_logits_where_that_of_the_targets_was_meant_is_warned_of():
    with pytest.warns(
        UserWarning, match="divides the logits; the temperature of the targets of 'd2gpo' is d2gpo_temperature"
    ):
        EMOOptions(objective="d2gpo", mixing="fixed", temperature=0.3)
    # A call with both temperatures is deliberate, so there is no warning.
    EMOOptions(objective="d2gpo", mixing="fixed", temperature=0.3, d2gpo_temperature=0.3)
    EMOOptions(objective="emo", temperature=0.3)
