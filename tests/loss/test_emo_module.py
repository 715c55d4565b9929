import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from costbank.bank import Bank
from costbank.errors import ShapeError, UsageError
from costbank.loss import EMOLoss, EMOOptions, LinearEMOLoss, emo_loss, open_costs, open_smoothing


def test_a_bank_is_all_it_takes(news_bank: Bank):
    loss_of = EMOLoss(news_bank)
    logits = torch.randn(2, 5, 2_000, requires_grad=True)
    labels = torch.randint(0, 2_000, (2, 5))
    result = loss_of.with_parts(logits, labels)
    result.loss.backward()
    assert torch.isfinite(result.loss)
    expected = news_bank.cost_matrix(labels.flatten().numpy(), np.arange(2_000))
    by_hand = (torch.softmax(logits, -1).reshape(10, -1) * torch.from_numpy(expected)).sum(1)
    published = EMOLoss(news_bank, preset="published").with_parts(logits, labels)
    assert torch.equal(published.loss, emo_loss(logits, labels, open_costs(news_bank)))
    assert torch.allclose(published.parts.value.flatten(), by_hand, atol=1e-5)


def test_options_choose_what_is_opened_of_a_bank(news_bank: Bank):
    """The recommended objective, unless an option belongs to another."""
    recommended, published = EMOOptions.preset("recommended"), EMOOptions()
    smoothing = open_smoothing(news_bank)
    for costs, changes, base in [
        (news_bank, {}, recommended), (news_bank, {"weight": 0.2, "shift": True}, recommended),
        (news_bank, {"objective": "neighbor_smoothing", "mixing": "fixed"}, recommended),
        (news_bank, {"mixing": "interpolate"}, recommended), (news_bank, {"mixing": "fixed"}, recommended),
        (smoothing, {}, recommended), (smoothing, {"mixing": "fixed"}, recommended),
        (news_bank, {"objective": "emo", "mixing": "fixed"}, published), (news_bank, {"mixing": "emo1"}, published),
        (news_bank, {"objective": "emo"}, published), (news_bank, {"target_mass": "detached"}, published),
        (open_costs(news_bank), {}, published), (None, {"objective": "ce"}, published),
    ]:  # fmt: skip
        loss = EMOLoss(costs, **changes)
        assert loss.options == replace(base, **changes), changes
        is_smoothing = loss.costs is not None and loss.costs.form == "smoothing"
        assert is_smoothing == (loss.options.objective == "neighbor_smoothing")
    assert EMOLoss(news_bank, EMOOptions()).options == published


def test_options_are_given_whole_or_by_name(costs):
    assert EMOLoss(costs).options == EMOOptions()
    assert EMOLoss(costs, EMOOptions(mixing="emo2", ignore_index=0), reduction="sum").options == EMOOptions(
        mixing="emo2", ignore_index=0, reduction="sum"
    )
    assert "emo2" in repr(EMOLoss(costs, mixing="emo2"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixing": "emo3"}, "mixing is 'emo3'"),
        ({"reduction": "max"}, "reduction is 'max'"),
        ({"weight": -1.0}, "weight is -1.0"),
        ({"weight": float("nan")}, "weight is nan"),
        ({"mixing": "emo1", "weight": 0.5}, "weight is 0.5, but mixing 'emo1' computes its own"),
        ({"objective": "log", "mixing": "emo1"}, "mixing is 'emo1', but the objective 'log' is itself"),
        ({"preset": "recommended", "mixing": "emo1"}, "mixing is 'emo1', but the objective 'neighbor_smoothing' is"),
        ({"mixing": "fixed", "entropy_gate": "20"}, "entropy_gate is '20'"),
        ({"mixing": "fixed", "entropy_gate": 1.0}, "entropy_gate is 1.0"),
        ({"mixing": "emo1", "entropy_gate": 20.0}, "entropy_gate changes the weight"),
        ({"objective": "ce", "entropy_gate": 20.0}, "entropy_gate changes the weight"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(costs, options: dict, message: str):
    with pytest.raises(UsageError, match=message):
        EMOLoss(costs, **options)


def test_modules_return_entropies_where_they_are_asked_for(costs, logits, labels):
    probabilities = logits.double().softmax(-1)
    by_hand = -(probabilities * probabilities.log()).sum(-1).masked_fill(labels == -100, 0.0).float()
    full = EMOLoss(costs).with_parts(logits, labels, entropy=True)
    torch.testing.assert_close(full.parts.entropy, by_hand, atol=1e-5, rtol=0)
    linear = LinearEMOLoss(costs).with_parts(logits, torch.eye(37), labels, entropy=True)
    torch.testing.assert_close(linear.parts.entropy, by_hand, atol=1e-5, rtol=0)
    assert EMOLoss(costs).with_parts(logits, labels).parts.entropy[labels != -100].isnan().all()
    assert torch.equal(EMOLoss(costs)(logits, labels), full.loss)


def test_a_checkpoint_holds_no_costs(costs):
    model = nn.ModuleDict({"head": nn.Linear(3, 37), "loss": EMOLoss(costs)})
    assert set(model.state_dict()) == {"head.weight", "head.bias", "loss._extra_state"}
    assert model.state_dict()["loss._extra_state"].numel() < 100
    assert len(list(model["loss"].parameters())) == 0


def test_costs_stay_float32_and_follow_the_device(costs):
    model = nn.ModuleDict({"loss": EMOLoss(costs)})
    assert model.half()["loss"].costs.vectors.dtype == torch.float32
    assert torch.equal(model.bfloat16()["loss"].costs.vectors, costs.vectors)
    assert model.to("meta")["loss"].costs.vectors.device.type == "meta"


def test_a_module_can_be_copied(costs):
    copied = copy.deepcopy(EMOLoss(costs))
    assert torch.equal(copied.costs.vectors, costs.vectors)


def test_a_bank_is_fitted_to_other_logits_when_asked(news_bank: Bank):
    wide = open_costs(news_bank, vocab_size=2_048)
    assert wide.vectors.shape == (2_048, 24)
    assert (wide.vectors[2_000:] == 0).all()
    assert torch.equal(open_costs(news_bank, vocab_size=1_900).vectors, wide.vectors[:1_900])
    with pytest.raises(ShapeError):
        open_costs(news_bank, vocab_size=0)


def test_arguments_that_do_not_fit_are_refused(costs, logits, labels):
    loss_of = EMOLoss(costs)
    with pytest.raises(ShapeError, match=r"40 wide.*37 tokens") as caught:
        loss_of(torch.randn(29, 40), labels)
    assert "pad(rows, (0, 0, 0, 3))" in caught.value.hint
    with pytest.raises(ShapeError, match=r"labels of shape \[28\] for \[29\]"):
        loss_of(logits, labels[1:])
    with pytest.raises(ShapeError, match=r"torch\.int64"):
        emo_loss(logits.long(), labels, costs)
    with pytest.raises(UsageError, match=r"torch\.float32"):
        loss_of(logits, labels.float())
    with pytest.raises(UsageError, match="meta"):
        loss_of(logits.to("meta"), labels.to("meta"))


@pytest.mark.parametrize("wrong", [37, -1, -101, 10**12])
def test_a_label_out_of_range_is_named(costs, logits, labels, wrong: int):
    with pytest.raises(UsageError, match=f"label {wrong} ") as caught:
        EMOLoss(costs)(logits, torch.where(labels == -100, wrong, labels))
    assert "ignore_index" in caught.value.hint


def test_narrow_integer_labels_are_taken(costs, logits, labels):
    assert torch.equal(EMOLoss(costs)(logits, labels.to(torch.int32)), EMOLoss(costs)(logits, labels))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nan_logits_are_refused_unless_they_may_pass(costs, logits, labels, value: float):
    spoilt = logits.clone()
    spoilt[3, 5] = value
    with pytest.raises(UsageError, match="the loss is NaN: logits") as caught:
        EMOLoss(costs)(spoilt, labels)
    assert "nan_logits='pass'" in caught.value.hint
    assert torch.isnan(EMOLoss(costs, nan_logits="pass")(spoilt, labels))


def test_nan_logits_of_ignored_tokens_do_not_matter(costs, logits, labels):
    spoilt = torch.where((labels == -100)[:, None], torch.nan, logits)
    assert torch.equal(EMOLoss(costs)(spoilt, labels), EMOLoss(costs)(logits, labels))


@pytest.mark.parametrize("mixing", ["fixed", "emo1", "emo1_clamped", "emo2"])
def test_training_lowers_the_expected_cost(costs, generator, mixing: str):
    """A softmax classifier learns 37 clusters; the expected cost falls to a third of its initial value."""
    inputs = torch.randn(37, 16, generator=generator)
    head = nn.Linear(16, 37)
    loss_of = EMOLoss(costs, mixing=mixing)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    seen = []
    for _ in range(60):
        labels = torch.randint(0, 37, (64,), generator=generator)
        noisy = inputs[labels] + 0.1 * torch.randn(64, 16, generator=generator)
        result = loss_of.with_parts(head(noisy), labels)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        seen.append(result.parts.value.mean().item())
    assert seen[-1] < seen[0] / 3
