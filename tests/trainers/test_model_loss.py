"""The function for `model.loss_function`, and the callback that sets it and checks that it is in force."""

import copy
import logging
import pickle
from typing import Any

import pytest
import torch
import transformers as tf
from torch import nn

from costbank.bank import Bank
from costbank.errors import ShapeError, TokenizerError, UsageError
from costbank.loss import EMOLoss, Schedule
from costbank.trainers.model_loss import emo_loss_function
from costbank.trainers.model_loss_callback import EMOLossCallback
from tests.loss.oracle import token_losses
from tests.trainers.conftest import MODELS, SMALL, TEXTS, VOCAB, gpt2, llama, make_tokenizer
from tests.trainers.plain_loop import RATE, STEPS, Recorder, grouped, logged_losses, plain_losses, shifted

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

LOGITS = torch.randn(2, 7, VOCAB, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(2, VOCAB, (2, 7), generator=torch.Generator().manual_seed(1))
LABELS[0, :4] = LABELS[1, -1] = -100


def expected(bank: Bank, targets: torch.Tensor, divisor: float) -> float:
    loss = EMOLoss(bank)
    values = token_losses(LOGITS.flatten(0, 1), targets.flatten(), loss.costs, loss.options)
    return float(values.sum()) / divisor


def test_the_value_is_the_definitions(bank: Bank):
    f = emo_loss_function(bank)
    count = int((LABELS[:, 1:] != -100).sum())
    mean = expected(bank, shifted(LABELS), count)
    assert f(LOGITS, LABELS, VOCAB).item() == pytest.approx(mean, abs=1e-5)
    # As keywords and with further arguments, as models call it.
    given = f(logits=LOGITS, labels=LABELS, vocab_size=VOCAB, position_ids=None, use_cache=False)
    assert given.item() == pytest.approx(mean, abs=1e-5)
    # Rows may be flat, as in models that drop ignored rows.
    assert f(LOGITS.flatten(0, 1), LABELS, VOCAB).item() == pytest.approx(mean, abs=1e-5)


@pytest.mark.parametrize("items", [31, torch.tensor(31), torch.tensor([31])], ids=["int", "scalar", "vector"])
def test_the_sum_is_divided_by_the_items(bank: Bank, items: Any):
    value = emo_loss_function(bank)(LOGITS, LABELS, VOCAB, num_items_in_batch=items)
    assert value.item() == pytest.approx(expected(bank, shifted(LABELS), 31), abs=1e-5)


def test_shifted_labels_are_not_shifted_again(bank: Bank):
    # Sequence parallelism cuts rows after the shift: the last label of the first half is the second half's first.
    f, targets = emo_loss_function(bank), shifted(LABELS)
    halves = [f(LOGITS[:, part], None, VOCAB, 10, shift_labels=targets[:, part]) for part in (slice(4), slice(4, 7))]
    assert sum(half.item() for half in halves) == pytest.approx(expected(bank, targets, 10), abs=1e-5)
    unshifted = emo_loss_function(bank, shift=False)(LOGITS, LABELS, VOCAB, 10)
    assert unshifted.item() == pytest.approx(expected(bank, LABELS, 10), abs=1e-5)


def test_another_ignored_label_is_the_callers(bank: Bank):
    labels = LABELS.masked_fill(LABELS == -100, -7)
    value = emo_loss_function(bank)(LOGITS, labels, VOCAB, 10, ignore_index=-7)
    assert value.item() == pytest.approx(expected(bank, shifted(LABELS), 10), abs=1e-5)


class EmptyLogits:
    pass


@pytest.mark.parametrize("logits", [None, EmptyLogits(), torch.empty(0), torch.empty(2, 7, 0)],
                         ids=["missing", "a stand-in", "empty", "no columns"])  # fmt: skip
def test_logits_that_were_not_computed_are_refused(logits: Any, bank: Bank):
    with pytest.raises(UsageError, match="logits") as caught:
        emo_loss_function(bank)(logits, LABELS, VOCAB)
    assert "UNSLOTH_RETURN_LOGITS=1" in caught.value.hint


def test_wrong_arguments_are_refused(bank: Bank):
    f = emo_loss_function(bank)
    with pytest.raises(UsageError, match="no labels"):
        f(LOGITS, None, VOCAB)
    with pytest.raises(ShapeError, match="logits_to_keep"):
        f(LOGITS[:, :3], LABELS, VOCAB)
    with pytest.raises(UsageError, match="weight were given with a loss"):
        emo_loss_function(EMOLoss(bank), weight=0.2)
    with pytest.raises(UsageError, match="weight were given with a finished function"):
        EMOLossCallback(f, weight=0.2)
    with pytest.raises(UsageError, match="step is not known") as caught:
        emo_loss_function(bank, weight=Schedule(0.0, 0.2, 5))(LOGITS, LABELS, VOCAB)
    assert "EMOLossCallback" in caught.value.hint


def test_options_and_names_are_taken(bank: Bank):
    f = emo_loss_function(f"{bank.path}/", preset="paper")
    assert (f.loss.options.mixing, f.bank.id) == ("emo1", bank.id)
    assert f.__name__.endswith("ForCausalLMLoss")
    assert not emo_loss_function(bank, shift=False).__name__.endswith("ForCausalLMLoss")
    loaded = pickle.loads(pickle.dumps(f))
    assert loaded(LOGITS, LABELS, VOCAB).item() == pytest.approx(f(LOGITS, LABELS, VOCAB).item())


@pytest.mark.parametrize("name", MODELS)
def test_the_models_loss_is_this_one(name: str, bank: Bank):
    model = MODELS[name]()
    model.loss_function = emo_loss_function(bank)
    output = model(input_ids=LABELS.clamp(min=2), labels=LABELS)
    loss = EMOLoss(bank, shift=True)
    assert output.loss.item() == pytest.approx(loss(output.logits, LABELS).item(), abs=1e-5)


def ten_steps(arguments: Any, **changes: Any) -> tf.TrainingArguments:
    return arguments(max_steps=STEPS, learning_rate=RATE, **changes)


@pytest.mark.parametrize(("rows", "accumulated"), [(8, 1), (2, 4)], ids=["one batch", "four batches"])
@pytest.mark.parametrize("name", ["gpt2, tied", "llama, untied"])
def test_ten_steps_are_those_of_a_plain_loop(
    name: str, rows: int, accumulated: int, bank: Bank, arguments: Any, texts: Any, tokenizer: Any
):
    model = MODELS[name]()
    start, recorder = copy.deepcopy(model), Recorder(tf.default_data_collator)
    args = ten_steps(arguments, per_device_train_batch_size=rows, gradient_accumulation_steps=accumulated)
    trainer = tf.Trainer(model, args, train_dataset=texts, data_collator=recorder, processing_class=tokenizer,
                         callbacks=[EMOLossCallback(bank)])  # fmt: skip
    trainer.train()
    plain = plain_losses(start, grouped(recorder.batches, accumulated), EMOLoss(bank))
    assert len(plain) == STEPS
    assert logged_losses(trainer) == pytest.approx(plain, abs=1e-4)
    for one, other in zip(model.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def test_ten_steps_without_a_token_count_are_means_of_batches(bank: Bank, arguments: Any, texts: Any):
    model = llama()
    start, recorder = copy.deepcopy(model), Recorder(tf.default_data_collator)
    trainer = tf.Trainer(model, ten_steps(arguments), train_dataset=texts, data_collator=recorder,
                         callbacks=[EMOLossCallback(bank)])  # fmt: skip
    trainer.model_accepts_loss_kwargs = False
    trainer.train()
    assert logged_losses(trainer) == pytest.approx(
        plain_losses(start, grouped(recorder.batches), EMOLoss(bank)), abs=1e-4
    )


def padded(features: list[dict[str, Any]]) -> dict[str, Any]:
    length = max(len(row["input_ids"]) for row in features)
    short = [length - len(row["input_ids"]) for row in features]
    return {
        "input_ids": torch.tensor([row["input_ids"] + [0] * n for row, n in zip(features, short, strict=True)]),
        "labels": torch.tensor([row["labels"] + [-100] * n for row, n in zip(features, short, strict=True)]),
        "attention_mask": torch.tensor([[1] * (length - n) + [0] * n for n in short]),
    }


def test_padding_free_rows_train_like_padded_ones(bank: Bank, arguments: Any, texts: Any):
    """Four texts in one row, which their positions tell apart."""
    rows = [{"input_ids": texts.ids[i][texts.mask[i] == 1].tolist(),
             "labels": texts.labels[i][texts.mask[i] == 1].tolist()} for i in range(len(texts))]  # fmt: skip
    model = llama()
    start = copy.deepcopy(model)
    flatten, recorder = tf.DataCollatorWithFlattening(), Recorder(padded)

    def collate(features: list[dict[str, Any]]) -> dict[str, Any]:
        recorder(features)
        return flatten(features)

    args = ten_steps(arguments, per_device_train_batch_size=4, remove_unused_columns=False)
    trainer = tf.Trainer(model, args, train_dataset=rows, data_collator=collate, callbacks=[EMOLossCallback(bank)])
    trainer.train()
    assert all(batch["input_ids"].shape[0] == 4 for batch in recorder.batches)
    plain = plain_losses(start, grouped(recorder.batches), EMOLoss(bank))
    assert logged_losses(trainer) == pytest.approx(plain, abs=1e-4)


def test_a_scheduled_weight_follows_the_trainers_steps(bank: Bank, arguments: Any, texts: Any):
    schedule = Schedule(0.0, 0.5, 4)
    model = llama()
    start, recorder = copy.deepcopy(model), Recorder(tf.default_data_collator)
    callback = EMOLossCallback(bank, weight=schedule)
    trainer = tf.Trainer(model, ten_steps(arguments), train_dataset=texts, data_collator=recorder, callbacks=[callback])
    trainer.train()
    plain = []
    for step, batch in enumerate(recorder.batches[:STEPS]):
        plain += plain_losses(start, [[batch]], EMOLoss(bank, weight=schedule.at(step)))
    assert logged_losses(trainer) == pytest.approx(plain, abs=1e-4)


def test_the_log_says_that_it_is_in_force(
    bank: Bank, arguments: Any, texts: Any, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    line = (f"costbank: the loss is in force in the Trainer: bank tiny@{bank.id}, objective neighbor_smoothing, "
            "mixing interpolate, weight 0.1")  # fmt: skip

    def train() -> None:
        args = arguments(max_steps=2)
        tf.Trainer(llama(), args, train_dataset=texts, callbacks=[EMOLossCallback(bank)]).train()

    train()
    assert capsys.readouterr().err.splitlines().count(line) == 1
    with caplog.at_level(logging.INFO, logger="costbank"):
        train()
    assert [record.getMessage() for record in caplog.records if record.name.startswith("costbank")] == [line]
    assert line not in capsys.readouterr().err


def refused(kind: type[Exception], match: str, trainer: tf.Trainer) -> Any:
    before = copy.deepcopy(trainer.model.state_dict())
    with pytest.raises(kind, match=match) as caught:
        trainer.train()
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]), "the model was trained before the refusal"
    return caught.value


def test_another_tokenizer_is_refused_before_the_first_step(bank: Bank, arguments: Any, texts: Any):
    other = make_tokenizer([text[::-1] for text in TEXTS])
    trainer = tf.Trainer(llama(), arguments(), train_dataset=texts, processing_class=other,
                         callbacks=[EMOLossCallback(bank)])  # fmt: skip
    refused(TokenizerError, "ids differ between the tokenizer", trainer)


@pytest.mark.parametrize("size", [200, 600])
def test_a_resized_vocabulary_is_refused_before_the_first_step(size: int, bank: Bank, arguments: Any, texts: Any):
    model = llama()
    model.resize_token_embeddings(size)
    trainer = tf.Trainer(model, arguments(), train_dataset=texts, callbacks=[EMOLossCallback(bank)])
    refused(ShapeError, f"{size} wide", trainer)


def lce_forward(self: Any, input_ids: Any = None, labels: Any = None, **rest: Any) -> Any:
    """A stand-in for Liger's function, which uses `loss_function` in evaluations only."""
    return self.loss_function(None, labels, 0)


@pytest.mark.parametrize(
    ("module", "match"),
    [
        ("liger_kernel.transformers.model.llama", "Liger's fused linear cross-entropy"),
        ("cut_cross_entropy.transformers.llama", "cut cross-entropy"),
        ("unsloth.models.llama", "unsloth's own cross-entropy"),
    ],
)
def test_a_fused_loss_is_refused_before_the_first_step(
    module: str, match: str, bank: Bank, arguments: Any, texts: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lce_forward, "__module__", module)
    instance, patched_class = llama(), type("Llama", (tf.LlamaForCausalLM,), {"forward": lce_forward})
    instance.forward = lce_forward.__get__(instance)
    for model in (instance, patched_class(tf.LlamaConfig(**SMALL))):
        trainer = tf.Trainer(model, arguments(), train_dataset=texts, callbacks=[EMOLossCallback(bank)])
        refused(UsageError, match, trainer)


def test_a_model_that_computes_its_loss_itself_is_refused(bank: Bank, arguments: Any, texts: Any):
    model = tf.BertForMaskedLM(tf.BertConfig(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1,
                                             num_attention_heads=2, intermediate_size=32))  # fmt: skip
    trainer = tf.Trainer(model, arguments(), train_dataset=texts, callbacks=[EMOLossCallback(bank)])
    error = refused(UsageError, "BertForMaskedLM computes its loss itself", trainer)
    assert "EMOTrainerMixin" in error.hint


def mean_logit(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> torch.Tensor:
    return outputs.logits.mean()


class OtherLoss(tf.Trainer):
    """Calls the model with labels, and then computes another loss, as LLaMA-Factory does for ASFT."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **rest: Any) -> Any:
        outputs = model(**inputs)
        loss = nn.functional.cross_entropy(outputs.logits.flatten(0, 1), inputs["labels"].flatten())
        return (loss, outputs) if return_outputs else loss


def test_another_loss_of_the_trainer_is_refused_before_the_first_step(bank: Bank, arguments: Any, texts: Any):
    callback = EMOLossCallback(bank)
    for trainer in (
        OtherLoss(llama(), arguments(), train_dataset=texts, callbacks=[callback]),
        tf.Trainer(llama(), arguments(), train_dataset=texts, callbacks=[callback],
                   compute_loss_func=mean_logit),
    ):  # fmt: skip
        error = refused(UsageError, f"step 1 was trained with another loss than that of tiny@{bank.id}", trainer)
        assert "compute_loss_func" in error.hint
    smoothing = arguments(label_smoothing_factor=0.1)
    refused(UsageError, "label_smoothing", tf.Trainer(llama(), smoothing, train_dataset=texts, callbacks=[callback]))


def test_a_checkpoint_of_another_bank_is_refused(bank: Bank, other_bank: Bank, arguments: Any, texts: Any):
    args = arguments(save_strategy="steps", save_steps=2)
    tf.Trainer(gpt2(), args, train_dataset=texts, callbacks=[EMOLossCallback(bank)]).train()
    resumed = tf.Trainer(gpt2(), args, train_dataset=texts, callbacks=[EMOLossCallback(other_bank)])
    with pytest.raises(UsageError, match="the checkpoint was trained with the costs"):
        resumed.train(resume_from_checkpoint=True)


def test_adapters_train_with_it(bank: Bank, arguments: Any, texts: Any):
    import peft

    model = peft.get_peft_model(llama(), peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    start, recorder = copy.deepcopy(model), Recorder(tf.default_data_collator)
    trainer = tf.Trainer(model, ten_steps(arguments), train_dataset=texts, data_collator=recorder,
                         callbacks=[EMOLossCallback(bank)])  # fmt: skip
    trainer.train()
    plain = plain_losses(start, grouped(recorder.batches), EMOLoss(bank))
    assert logged_losses(trainer) == pytest.approx(plain, abs=1e-4)
    prompt = peft.get_peft_model(llama(), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    trainer = tf.Trainer(prompt, arguments(), train_dataset=texts, callbacks=[EMOLossCallback(bank)])
    refused(UsageError, "prompt tuning", trainer)
