"""A selection of `python -m tests.sweep.losses`, which tests every class of the installed transformers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

from costbank.trainers.own_loss import OwnLossFacts
from tests.sweep.losses import examine

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

# The operation that each class applies to its logits, and whether it shifts labels.
RIGHT = {
    "CohereForCausalLM": ("a scale of 0.0625", True),
    "FalconH1ForCausalLM": ("a scale of 0.3", True),
    "Gemma2ForCausalLM": ("a softcap of 30", True),
    "GraniteForCausalLM": ("a scale of 0.0769231", True),
    "Qwen3MoeForCausalLM": ("nothing", True),
    "Llama4ForCausalLM": ("nothing", True),
    "SwitchTransformersForConditionalGeneration": ("nothing", False),
    "WhisperForCausalLM": ("nothing", False),
    "XLMWithLMHeadModel": ("nothing", False),
    "EsmForMaskedLM": ("a learned bias", False),
    "FSMTForConditionalGeneration": ("nothing", False),
    "MobileBertForMaskedLM": ("a learned bias", False),
    "ClvpForCausalLM": ("nothing", True),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small are slower with more threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", RIGHT)
def test_both_forms_are_the_models_own(name: str, tmp_path: Path):
    row = examine(name, str(tmp_path))
    assert row.verdict == "right", row
    assert (row.applies, row.shift) == RIGHT[name]
    assert row.own_gradient is not None
    assert row.largest > 5.0


class Clamped(tf.LlamaForCausalLM):
    """A model that clamps its logits, which is neither a scale nor a softcap."""

    def forward(self, *given: Any, labels: Any = None, **named: Any) -> Any:
        outputs: Any = super().forward(*given, **named)
        outputs.logits = outputs.logits.clamp(-2.0, 2.0)
        if labels is not None:
            outputs.loss = self.loss_function(outputs.logits, labels, self.vocab_size)
        return outputs


def test_the_linear_form_is_refused_and_full_logits_train(tmp_path: Path):
    row = examine("Clamped", str(tmp_path), kind=Clamped)
    assert row.verdict == "refused", row
    assert "neither a scale nor a softcap" in row.detail
    assert row.own_gradient is not None


class MiniCPM(tf.LlamaForCausalLM):
    """A model that divides hidden states before the head, like the remote code of MiniCPM."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.lm_head.register_forward_pre_hook(lambda _module, inputs: (inputs[0] / 4.0,))


class Doubled(tf.LlamaForCausalLM):
    """A model whose own loss is not the cross-entropy of its logits."""

    def forward(self, *given: Any, **named: Any) -> Any:
        outputs = super().forward(*given, **named)
        if outputs.loss is not None:
            outputs.loss = outputs.loss * 2
        return outputs


def test_a_remote_models_habits(tmp_path: Path):
    assert examine("MiniCPM", str(tmp_path), kind=MiniCPM).verdict == "right"
    row = examine("Doubled", str(tmp_path), kind=Doubled)
    assert (row.verdict, row.own_value) == ("refused whole", None)


def test_the_sweep_sees_a_wrong_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The trainer is made to shift labels although the model does not."""
    monkeypatch.setattr("costbank.trainers.model_probe.compare_own_loss", lambda *_, **__: OwnLossFacts(True))
    row = examine("BertForMaskedLM", str(tmp_path))
    assert row.verdict == "wrong", row
    assert "cross-entropy is" in row.detail
