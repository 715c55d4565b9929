"""Ten steps with the linear loss equal ten steps of a plain loop with the model's own logits.

The plain loop knows nothing of heads, scales or softcaps: it calls the model, and gives its logits to `emo_loss`.
"""

import logging
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers as tf
from peft import LoraConfig, get_peft_model
from torch import nn

from costbank.bank import Bank
from costbank.errors import UsageError
from costbank.loss import EMOOptions, LinearEMOLoss, emo_loss, open_smoothing
from costbank.trainers import model_probe
from costbank.trainers.huggingface import EMOTrainerMixin
from tests.sweep.families import FAMILIES
from tests.sweep.tiny import build
from tests.trainers.conftest import VOCAB

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

STEPS, ROWS, ACCUMULATED, LENGTH, RATE = 10, 2, 2, 9, 0.2

# What each class does to its head's output, and settings that make it visible.
CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "CohereForCausalLM": ("a scale of 0.25", {"logit_scale": 0.25}),
    "Cohere2ForCausalLM": ("a scale of 0.25", {"logit_scale": 0.25, "layer_types": ["full_attention"] * 2}),
    "GraniteForCausalLM": ("a scale of 0.333333", {"logits_scaling": 3.0}),
    "GraniteMoeForCausalLM": ("a scale of 0.333333", {"logits_scaling": 3.0, "output_router_logits": False}),
    "HyperCLOVAXForCausalLM": ("a scale of 0.3", {"logits_scaling": 0.3}),
    "FalconH1ForCausalLM": ("a scale of 0.3", {"lm_head_multiplier": 0.3}),
    "Gemma2ForCausalLM": ("a softcap of 0.5", {"final_logit_softcapping": 0.5, "initializer_range": 0.3}),
    "Gemma3ForCausalLM": ("a softcap of 0.5", {"final_logit_softcapping": 0.5, "initializer_range": 0.3}),
    "T5ForConditionalGeneration": ("nothing", {"tie_word_embeddings": True}),
    "MT5ForConditionalGeneration": ("nothing", {}),
    "UMT5ForConditionalGeneration": ("nothing", {}),
    "PhiForCausalLM": ("nothing", {}),
    "MiniCPM3ForCausalLM": ("nothing", {"scale_emb": 3, "dim_model_base": 4}),
    "GPTJForCausalLM": ("nothing", {}),
    "FalconForCausalLM": ("nothing", {}),
    "OPTForCausalLM": ("nothing", {"word_embed_proj_dim": 8}),
    "BloomForCausalLM": ("nothing", {}),
    "CodeGenForCausalLM": ("nothing", {}),
    "StableLmForCausalLM": ("nothing", {}),
    "MptForCausalLM": ("nothing", {}),
    "Llama4ForCausalLM": ("nothing", {}),
    "BartForConditionalGeneration": ("nothing", {}),
    "Qwen3VLForConditionalGeneration": ("nothing", {}),
    "EsmForMaskedLM": ("a learned bias", {"pad_token_id": 0, "mask_token_id": 3}),
    "MobileBertForMaskedLM": ("a learned bias", {"embedding_size": 8, "intermediate_size": 48}),
    "DebertaV2ForMaskedLM": ("a learned bias", {"legacy": False, "initializer_range": 0.3}),
    # Its config has a scale, which the class does not apply.
    "Cohere2VisionForConditionalGeneration": ("nothing", {"text_config": {"logit_scale": 0.25}}),
}


class EMOTrainer(EMOTrainerMixin, tf.Trainer):
    pass


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Models this small are slower with more threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def model_of(name: str) -> Any:
    """A tiny model with the bank's vocabulary, whose logits differ enough for gradients to matter."""
    settings = {**FAMILIES.get(name, {}).get("config", {}), **CLASSES.get(name, ("", {}))[1]}
    kind = getattr(tf, name)
    of_text = {**settings.pop("text_config", {}), "vocab_size": VOCAB}
    if "text_config" in getattr(kind.config_class, "sub_configs", {}):
        return build(kind, {**settings, "text_config": of_text})
    return build(kind, {**settings, "vocab_size": VOCAB})


def rows() -> list[dict[str, torch.Tensor]]:
    """Rows for ten steps. The prompt of each has no labels, and their lengths differ."""
    random = torch.Generator().manual_seed(4)
    ids = torch.randint(150, VOCAB, (STEPS * ROWS * ACCUMULATED, LENGTH), generator=random)
    labels = ids.clone()
    for index, row in enumerate(labels):
        row[: 1 + index % 5] = -100
    return [{"input_ids": row, "labels": label} for row, label in zip(ids, labels, strict=True)]


def plain_loop(model: Any, bank: Bank, shift: bool) -> list[float]:
    """Train on the rows with the model's own logits. The mean of a step is over the tokens of all its batches."""
    options = EMOOptions.preset("recommended", shift=shift, reduction="sum")
    costs, data, losses = open_smoothing(bank), rows(), []
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=RATE)
    for step in range(STEPS):
        first = step * ROWS * ACCUMULATED
        batches = [data[i : i + ROWS] for i in range(first, first + ROWS * ACCUMULATED, ROWS)]
        count = sum(int((row["labels"][shift:] != -100).sum()) for batch in batches for row in batch)
        total = 0.0
        for batch in batches:
            inputs = {name: torch.stack([row[name] for row in batch]) for name in batch[0]}
            labels = inputs.pop("labels")
            # An encoder-decoder makes its decoder's inputs of the labels.
            outputs = model(**inputs, **({} if shift else {"labels": labels}))
            loss = emo_loss(outputs.logits, labels, costs, options) / count
            loss.backward()
            total += loss.item()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    return losses


def mixin(model: Any, bank: Bank, folder: Any, **more: Any) -> Any:
    arguments = tf.TrainingArguments(
        str(folder), max_steps=STEPS, per_device_train_batch_size=ROWS, gradient_accumulation_steps=ACCUMULATED,
        optim="sgd", learning_rate=RATE, lr_scheduler_type="constant", max_grad_norm=0.0, logging_steps=1,
        save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False,
        train_sampling_strategy="sequential", remove_unused_columns=False,
    )  # fmt: skip
    return EMOTrainer(model, arguments, train_dataset=rows(), emo=LinearEMOLoss(bank), **more)


def trained(trainer: Any) -> list[float]:
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def assert_ten_steps_alike(make: Any, bank: Bank, folder: Any, *, shift: bool = True, near: float = 1e-4) -> Any:
    """Losses and weights after ten steps are those of the plain loop, and training changed them."""
    model, other = make(), make()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    trainer = mixin(model, bank, folder)
    losses = trained(trainer)
    assert losses == pytest.approx(plain_loop(other, bank, shift), abs=near)
    assert len(losses) == STEPS
    for (name, value), expected in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(value, expected, rtol=0, atol=near, msg=lambda m, n=name: f"{n}: {m}")
    assert max(float((value - before[name]).abs().max()) for name, value in model.named_parameters()) > 20 * near
    return trainer


@pytest.mark.parametrize("name", CLASSES)
def test_ten_steps_are_those_of_a_plain_loop(name: str, bank: Bank, tmp_path: Any):
    shift = not getattr(model_of(name).config, "is_encoder_decoder", False) and not name.endswith("MaskedLM")
    trainer = assert_ten_steps_alike(lambda: model_of(name), bank, tmp_path, shift=shift)
    assert trainer._emo_probe.applied == CLASSES[name][0]


def test_tied_weights_and_adapters_train_alike(bank: Bank, tmp_path: Any):
    def adapted() -> Any:
        torch.manual_seed(2)
        config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        return get_peft_model(model_of("CohereForCausalLM"), config)

    tied = model_of("CohereForCausalLM")
    assert tied.lm_head.weight is tied.get_input_embeddings().weight
    trainer = assert_ten_steps_alike(adapted, bank, tmp_path)
    assert trainer._emo_probe.applied == "a scale of 0.25"


class Upcast(tf.CohereForCausalLM):
    """A model in bfloat16 that computes its logits in bfloat16, and scales them in float32."""

    def forward(self, *given: Any, labels: Any = None, **named: Any) -> Any:
        scale, self.logit_scale = self.logit_scale or 1.0, 1.0
        outputs: Any = super().forward(*given, **named)
        self.logit_scale = scale
        outputs.logits = outputs.logits.float() * scale
        if labels is not None:
            outputs.loss = self.loss_function(outputs.logits, labels, self.vocab_size)
        return outputs


@pytest.mark.parametrize("kind", [tf.CohereForCausalLM, Upcast])
def test_a_model_in_bfloat16_trains_alike_to_its_rounding(kind: Any, bank: Bank, tmp_path: Any):
    def make() -> Any:
        return build(kind, {"vocab_size": VOCAB, "logit_scale": 0.25}).to(torch.bfloat16)

    torch.manual_seed(0)
    losses = trained(mixin(make(), bank, tmp_path))
    assert losses == pytest.approx(plain_loop(make(), bank, shift=True), abs=2e-2)


WRONG: dict[str, tuple[str, Any]] = {
    "scale": ("CohereForCausalLM", lambda form: replace(form, scale=form.scale * 1.01)),
    "no scale": ("GraniteForCausalLM", lambda form: replace(form, scale=1.0)),
    "softcap": ("Gemma2ForCausalLM", lambda form: replace(form, softcap=form.softcap * 1.1)),
    "no softcap": ("Gemma2ForCausalLM", lambda form: replace(form, softcap=None)),
    "bias": ("PhiForCausalLM", lambda form: replace(form, offset=torch.linspace(0, 0.1, VOCAB))),
}


@pytest.mark.parametrize(("name", "change"), WRONG.values(), ids=WRONG)
def test_a_wrong_assumption_is_refused_on_the_first_batch(
    name: str, change: Any, bank: Bank, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
):
    """What was measured is replaced by something else. The model's own logits disagree."""
    find_and_measure = model_probe.find_and_measure

    def wrong(*given: Any) -> Any:
        head, measured = find_and_measure(*given)
        return head, replace(measured, transform=change(measured.transform))

    monkeypatch.setattr(model_probe, "find_and_measure", wrong)
    trainer = mixin(model_of(name), bank, tmp_path, emo_check_loss=False)
    with pytest.raises(UsageError, match="are not its hidden states times its head's weight") as error:
        trainer.train()
    assert trainer.state.global_step == 0
    assert "the logits form" in error.value.hint


def test_a_scale_that_changes_after_it_was_measured_is_refused(bank: Bank, tmp_path: Any):
    class Late(tf.TrainerCallback):
        def on_step_end(self, *_: Any, model: Any = None, **__: Any) -> None:
            model.logit_scale = 0.2

    trainer = mixin(model_of("CohereForCausalLM"), bank, tmp_path, callbacks=[Late()])
    with pytest.raises(UsageError, match=r"a scale of 0\.25\): they differ by up to 0\.2 of the largest"):
        trainer.train()


class Changed(tf.LlamaForCausalLM):
    """A model that changes its logits by a parameter."""

    start, change = torch.tensor(0.0), staticmethod(lambda logits, _: logits)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.extra = nn.Parameter(type(self).start.clone())

    def forward(self, *given: Any, **named: Any) -> Any:
        labels = named.pop("labels", None)
        outputs: Any = super().forward(*given, **named)
        outputs.logits = type(self).change(outputs.logits, self.extra)
        if labels is not None:
            outputs.loss = self.loss_function(outputs.logits, labels, self.vocab_size)
        return outputs


def changed(change: Any, start: Any) -> Any:
    kind = type("Changed", (Changed,), {"change": staticmethod(change), "start": torch.as_tensor(start)})
    return build(kind, {"vocab_size": VOCAB, "initializer_range": 0.3})


LEARNED: dict[str, tuple[str, Any, Any]] = {
    "scale": ("a learned scale of 0.5", lambda z, p: z * p, 0.5),
    "temperature": ("a learned scale of 2", lambda z, p: z / p.exp(), -math.log(2.0)),
    "scale, then softcap": (
        "a learned scale of 1 and a softcap of 5", lambda z, p: 5.0 * torch.tanh(z * p / 5.0), 1.0
    ),
    "bias": ("a learned bias", lambda z, p: z + p, torch.zeros(VOCAB)),
    "scale and bias": ("a learned scale of 0.7 and a learned bias", lambda z, p: (z + p[1:]) * p[0],
                       torch.linspace(0.7, 0.0, VOCAB + 1)),
}  # fmt: skip


@pytest.mark.parametrize(("words", "change", "start"), LEARNED.values(), ids=LEARNED)
def test_a_learned_scale_or_bias_is_trained(words: str, change: Any, start: Any, bank: Bank, tmp_path: Any):
    trainer = assert_ten_steps_alike(lambda: changed(change, start), bank, tmp_path)
    assert trainer._emo_probe.applied == words
    assert float((trainer.model.extra - torch.as_tensor(start)).abs().max()) > 1e-3


UNLIKE: dict[str, tuple[Any, Any]] = {
    "a scale for each token": (lambda z, p: z * p, torch.ones(VOCAB)),
    "a softcap": (lambda z, p: p * torch.tanh(z / p), 5.0),
    "a bias after the softcap": (lambda z, p: 5.0 * torch.tanh(z / 5.0) + p, torch.zeros(VOCAB)),
    "two scales": (lambda z, p: torch.cat([z[..., :150] * p[0], z[..., 150:] * p[1]], -1), torch.ones(2)),
    "another product": (lambda z, p: z + (z @ p.T) @ p, torch.zeros(2, VOCAB)),
}


@pytest.mark.parametrize(("change", "start"), UNLIKE.values(), ids=UNLIKE)
def test_other_learned_changes_are_refused_though_they_change_nothing_at_first(
    change: Any, start: Any, bank: Bank, tmp_path: Any
):
    trainer = mixin(changed(change, start), bank, tmp_path)
    with pytest.raises(UsageError, match=r"learned parameters of shape|neither a scale nor a softcap") as error:
        trainer.train()
    assert trainer.state.global_step == 0
    assert "the logits form" in error.value.hint


def test_a_learned_bias_that_is_unfrozen_later_is_trained_from_then_on(bank: Bank, tmp_path: Any):
    class Unfreeze(tf.TrainerCallback):
        def on_train_begin(self, *_: Any, model: Any = None, **__: Any) -> None:
            model.extra.requires_grad_(False)

        def on_step_end(self, _args: Any, state: Any, *_: Any, model: Any = None, **__: Any) -> None:
            model.extra.requires_grad_(state.global_step != 7)

    model = changed(lambda z, p: z + p, torch.linspace(0.0, 0.1, VOCAB))
    before = model.extra.detach().clone()
    trainer = mixin(model, bank, tmp_path, callbacks=[Unfreeze()], eval_dataset=rows())
    trained(trainer)
    assert float((model.extra - before).abs().max()) > 1e-3
    assert trainer._emo_probe.applied == "a learned bias"
    ours = trainer.evaluate()["eval_emo_loss"]
    data = rows()
    with torch.no_grad():
        logits = model.eval()(input_ids=torch.stack([row["input_ids"] for row in data])).logits
    labels = torch.stack([row["labels"] for row in data])
    options = EMOOptions.preset("recommended", shift=True)
    assert ours == pytest.approx(float(emo_loss(logits, labels, open_smoothing(bank), options)), abs=1e-5)


class Readout(nn.Linear):
    """A head like muP's: it multiplies its input before its product."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x * 3.0 / 4.0)


class Normalized(nn.Linear):
    """A head whose rows have length 1, as Baichuan's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, nn.functional.normalize(self.weight))


class Adapted(nn.Linear):
    """A layer like loralib's: a subclass of Linear whose adapter is initially zero."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.down, self.up = nn.Parameter(torch.randn(4, self.in_features)), nn.Parameter(torch.zeros(VOCAB, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 0.4 * (x @ self.down.T @ self.up.T)


class Parts(nn.Module):
    """A head of two layers whose outputs are added."""

    def __init__(self, dim: int, vocab: int, bias: bool = False) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(dim, vocab, bias=False), nn.Linear(dim // 2, vocab)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = x.shape[-1] // 2
        return 0.5 * self.one(x) + 2.0 * self.two(torch.relu(x[..., :half]))


HEADS: dict[str, Any] = {"muP": Readout, "normalized": Normalized, "adapted": Adapted, "two layers": Parts}


@pytest.mark.parametrize("kind", HEADS.values(), ids=HEADS)
def test_a_head_that_is_not_one_linear_layer_trains_alike(kind: Any, bank: Bank, tmp_path: Any):
    def make() -> Any:
        model = build(tf.CohereForCausalLM, {"vocab_size": VOCAB, "logit_scale": 0.25, "tie_word_embeddings": False})
        torch.manual_seed(3)
        model.lm_head = kind(model.config.hidden_size, VOCAB, bias=False)
        return model

    trainer = assert_ten_steps_alike(make, bank, tmp_path)
    factor = 0.5 if kind is Parts else 1.0
    assert trainer._emo_probe.applied == f"a scale of {0.25 * factor:.6g}"


class Fading(tf.LlamaForCausalLM):
    """A model whose scale depends on the position, but not at the last one."""

    def forward(self, *given: Any, **named: Any) -> Any:
        outputs: Any = super().forward(*given, **named)
        count = outputs.logits.shape[1]
        outputs.logits = outputs.logits * torch.where(torch.arange(count) == 0, 0.5, 1.0)[:, None]
        return outputs


def test_the_first_batch_is_compared_at_several_positions(bank: Bank, tmp_path: Any):
    model = build(Fading, {"vocab_size": VOCAB, "initializer_range": 0.3})
    trainer = mixin(model, bank, tmp_path, emo_check_loss=False)
    with pytest.raises(UsageError, match="are not its hidden states times its head's weight"):
        trainer.train()


def test_one_line_says_what_is_applied(bank: Bank, tmp_path: Any, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "costbank.trainers"):
        mixin(model_of("GraniteForCausalLM"), bank, tmp_path).train()
    (line,) = [record.message for record in caplog.records if "the linear form computes" in record.message]
    assert line.startswith("the linear form computes the logits of GraniteForCausalLM")
    assert "a scale of 0.333333" in line
    assert "at 4 positions of the first batch" in line
