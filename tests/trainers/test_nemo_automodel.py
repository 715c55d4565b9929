"""The loss of NeMo Automodel: in Automodel itself if it is installed, and always against its interface."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from costbank.bank import Bank
from costbank.errors import InputNotFoundError, ShapeError, TokenizerError, UsageError
from costbank.loss import EMOLoss
from tests.loss.oracle import token_losses
from tests.trainers.conftest import TEXTS, VOCAB, Texts, llama, make_tokenizer
from tests.trainers.plain_loop import RATE, batch_pairs, plain_losses, shifted
from tests.trainers.stand_ins import framework, is_installed

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[bool]:
    with framework("nemo_automodel") as real:
        yield real


@pytest.fixture
def settings(bank: Bank, tokenizer: Any, tmp_path: Path) -> dict[str, str]:
    tokenizer.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    return {"bank": f"{bank.path}/", "tokenizer": str(tmp_path)}


def make(settings: dict[str, Any]) -> Any:
    from costbank.trainers.nemo_automodel import AutomodelEMOLoss

    return AutomodelEMOLoss(**settings)


def test_the_value_is_the_definitions(bank: Bank, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 7, VOCAB, generator=generator, requires_grad=True)
    labels = torch.randint(2, VOCAB, (2, 7), generator=generator)
    labels[0, :3] = -100
    loss = EMOLoss(bank, weight=0.3, temperature=2.0)
    each = token_losses(logits.detach().flatten(0, 1), labels.flatten(), loss.costs, loss.options).view(2, 7)
    ours = make({**settings, "weight": 0.3, "temperature": 2.0})
    assert f"in force in NeMo Automodel: bank tiny@{bank.id}" in capsys.readouterr().err
    # Labels are already shifted.
    assert ours(logits=logits, labels=labels).item() == pytest.approx(float(each.sum()), abs=1e-4)
    assert ours(logits=logits, labels=labels, num_label_tokens=31).item() == pytest.approx(float(each.sum()) / 31)
    weights = torch.rand(2, 7, generator=generator)
    weighted = ours(logits=logits, labels=labels, num_label_tokens=31, loss_weights=weights)
    assert weighted.item() == pytest.approx(float((each * weights).sum()) / 31, abs=1e-5)
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 2:] = 0
    assert ours(logits, labels, mask).item() == pytest.approx(float((each * mask).sum()), abs=1e-4)
    nothing = ours(logits=logits, labels=torch.full_like(labels, -100), num_label_tokens=0)
    nothing.backward()
    assert nothing.item() == 0 == logits.grad.abs().max()


def test_ten_steps_are_those_of_a_plain_loop(bank: Bank, settings: dict[str, Any], texts: Texts):
    """As the recipe calls it: labels shifted by the dataset, and a loss for each of two accumulated batches."""
    steps = batch_pairs(texts)
    plain = plain_losses(llama(), steps, EMOLoss(bank))
    model, loss, losses = llama().train(), make(settings), []
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    for pair in steps:
        labels = [shifted(batch["labels"]) for batch in pair]
        count = sum(int((one != -100).sum()) for one in labels)
        total = 0.0
        for batch, one in zip(pair, labels, strict=True):
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            value = calculate(loss, logits=logits, labels=one, num_label_tokens=count)
            value.backward()
            total += value.item()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    assert losses == pytest.approx(plain, abs=1e-4)


def calculate(loss: Any, **arguments: Any) -> torch.Tensor:
    if is_installed("nemo_automodel"):
        from nemo_automodel.components.loss.utils import calculate_loss

        return calculate_loss(loss, model=None, hidden_states=None, lm_weight=None, **arguments)
    return loss(**arguments)


def test_a_wrong_bank_or_tokenizer_is_refused(settings: dict[str, Any], tmp_path: Path):
    (tmp_path / "other").mkdir()
    other = make_tokenizer([text[::-1] for text in TEXTS])
    other.backend_tokenizer.save(str(tmp_path / "other" / "tokenizer.json"))
    with pytest.raises(TokenizerError, match="ids differ"):
        make({**settings, "tokenizer": str(tmp_path / "other")})
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputNotFoundError, match=r"has no tokenizer\.json"):
        make({**settings, "tokenizer": str(tmp_path / "empty")})
    with pytest.raises(UsageError, match="bank is not set"):
        make({**settings, "bank": ""})
    loss = make(settings)
    with pytest.raises(ShapeError, match="500 wide"):
        loss(torch.zeros(1, 2, 500), torch.tensor([[3, 4]]))
    with pytest.raises(UsageError, match="no logits"):
        loss(None, torch.tensor([[3, 4]]))


@pytest.mark.skipif(not is_installed("nemo_automodel"), reason="nemo-automodel is not installed")
def test_automodel_builds_it_from_yaml(settings: dict[str, Any], tmp_path: Path):
    from nemo_automodel.components.config.loader import ConfigNode

    target = "costbank.trainers.nemo_automodel.AutomodelEMOLoss"
    loss = ConfigNode({"_target_": target, **settings, "weight": 0.3}).instantiate()
    assert loss.emo.options.weight == 0.3
    # A recipe replaces a loss that is none of these if the model's forward has no logits_to_keep.
    from nemo_automodel.components.loss.masked_ce import MaskedCrossEntropy

    assert isinstance(loss, MaskedCrossEntropy)
