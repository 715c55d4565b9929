import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from costbank_service import Settings, serving
from transformers import (
    MixtralConfig,
    MixtralForCausalLM,
    ProcessorMixin,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
)

from costbank.bank import Bank
from costbank.errors import BankNotFoundError, TokenizerError, UsageError
from costbank.loss import EMOLoss, EMOOptions, LinearEMOLoss, Schedule, open_costs
from costbank.trainers.heads import find_head
from costbank.trainers.huggingface import EMOTrainerMixin, compute_loss_func
from tests.trainers.conftest import MODELS, SMALL, TEXTS, Texts, gpt2, llama, make_tokenizer

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*:UserWarning"),
]


class EMOTrainer(EMOTrainerMixin, Trainer):
    pass


def trained(trainer: Trainer) -> dict[str, torch.Tensor]:
    trainer.train()
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


def losses(trainer: Trainer) -> list[float]:
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float = 1e-5) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def by_function(model: Any, args: Any, texts: Any, loss: Any, **more: Any) -> Trainer:
    function = compute_loss_func(loss)
    return Trainer(model, args, train_dataset=texts, compute_loss_func=function, callbacks=[function], **more)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize("emo", [LinearEMOLoss, EMOLoss])
def test_the_mixin_trains_as_the_loss_of_full_logits_does(make: Any, emo: Any, bank: Bank, arguments: Any, texts: Any):
    full = by_function(make(), arguments(), texts, EMOLoss(bank))
    mixed = EMOTrainer(make(), arguments(), train_dataset=texts, emo=emo(bank))
    before = {name: value.detach().clone() for name, value in mixed.model.named_parameters()}
    after = trained(mixed)
    assert_same(after, trained(full))
    assert losses(mixed) == pytest.approx(losses(full), abs=1e-5)
    assert max((after[name] - before[name]).abs().max() for name in after) > 1e-3


def test_the_function_is_the_loss_that_its_formula_says(bank: Bank, texts: Any):
    model = gpt2()
    batch = {name: torch.stack([texts[i][name] for i in range(4)]) for name in texts[0]}
    labels = batch.pop("labels")
    outputs = model(**batch)
    loss = EMOLoss(bank, objective="emo", mixing="fixed", weight=0.7, reduction="none")
    total = loss(outputs.logits[:, :-1], labels[:, 1:]).sum()
    function = compute_loss_func(loss)
    assert function(outputs, labels, num_items_in_batch=torch.tensor(50)).item() == pytest.approx(total.item() / 50)
    assert function({"logits": outputs.logits}, labels, 50).item() == pytest.approx(total.item() / 50)
    mean = total.item() / (labels[:, 1:] != -100).sum().item()
    assert function(outputs, labels).item() == pytest.approx(mean)


@pytest.mark.parametrize("kind", ["function", "linear", "full"])
@pytest.mark.parametrize("mixing", ["emo1_clamped", "fixed"])
def test_four_batches_of_two_are_one_of_eight(kind: str, mixing: Any, bank: Bank, arguments: Any, texts: Any):
    def trainer(args: Any) -> Trainer:
        if kind == "function":
            return by_function(gpt2(), args, texts, EMOLoss(bank, mixing=mixing))
        emo = {"linear": LinearEMOLoss, "full": EMOLoss}[kind](bank, mixing=mixing)
        return EMOTrainer(gpt2(), args, train_dataset=texts, emo=emo)

    counts = {int((row["labels"][1:] != -100).sum()) for row in (texts[i] for i in range(len(texts)))}
    assert len(counts) > 3
    whole = trainer(arguments())
    parted = trainer(arguments(per_device_train_batch_size=2, gradient_accumulation_steps=4))
    assert_same(trained(whole), trained(parted))
    assert losses(whole) == pytest.approx(losses(parted), abs=1e-5)


def test_with_a_cost_weight_of_zero_it_is_plain_cross_entropy(bank: Bank, arguments: Any, texts: Any):
    plain = Trainer(gpt2(), arguments(gradient_accumulation_steps=2), train_dataset=texts)
    mixed = EMOTrainer(
        gpt2(), arguments(gradient_accumulation_steps=2), train_dataset=texts,
        emo=LinearEMOLoss(bank, mixing="fixed", weight=0.0),
    )  # fmt: skip
    assert_same(trained(plain), trained(mixed))
    assert losses(plain) == pytest.approx(losses(mixed), abs=1e-5)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_evaluation_prediction_and_generation_are_the_models_own(make: Any, bank: Bank, arguments: Any, texts: Any):
    trainer = EMOTrainer(make(), arguments(per_device_eval_batch_size=24), train_dataset=texts, eval_dataset=texts,
                         emo=LinearEMOLoss(bank))  # fmt: skip
    for _ in range(2):
        batch = {name: torch.stack([texts[i][name] for i in range(len(texts))]) for name in texts[0]}
        labels = batch.pop("labels")
        with torch.no_grad():
            logits = trainer.model.eval()(**batch).logits
        mean = EMOLoss(bank, shift=True).with_parts(logits, labels)
        metrics = trainer.evaluate()
        tokens = (labels[:, 1:] != -100).sum()
        assert metrics["eval_loss"] == pytest.approx((mean.parts.ce.sum() / tokens).item(), abs=1e-5)
        assert metrics["eval_emo_loss"] == pytest.approx(mean.loss.item(), abs=1e-5)
        assert metrics["eval_objective_value"] == pytest.approx((mean.parts.value.sum() / tokens).item(), abs=1e-5)
        assert trainer.predict(texts).predictions.shape == logits.shape
        prompts = batch["input_ids"][:2, :5]
        generated = trainer.model.generate(prompts, max_new_tokens=4, min_new_tokens=4, do_sample=False)
        assert generated.shape == (2, 9)
        assert not trainer.model.base_model._forward_hooks
        trainer.train()
    assert "forward" not in vars(trainer.model)


@pytest.mark.parametrize("emo", [LinearEMOLoss, EMOLoss])
@pytest.mark.parametrize(
    "options",
    [{}, {"label_smoothing": 0.2}, {"temperature": 2.0}, {"z_loss": 0.1}, {"preset": "published"}],
    ids=str,
)
def test_evaluation_gives_the_loss_that_a_run_without_it_gives(
    emo: Any, options: Any, bank: Bank, arguments: Any, texts: Any
):
    args = arguments(per_device_eval_batch_size=10)
    sets = {"one": texts, "two": Texts(make_tokenizer(TEXTS), 7)}
    plain = Trainer(llama(), args, eval_dataset=sets)
    mixed = EMOTrainer(llama(), args, eval_dataset=sets, emo=emo(bank, **options))
    theirs, ours = plain.evaluate(), mixed.evaluate()
    for name in ("eval_one_loss", "eval_two_loss"):
        assert ours[name] == pytest.approx(theirs[name], abs=1e-5)
        # Ours is the mean over all tokens; the Trainer's is the mean of batch means, weighted by rows.
        assert ours[name.replace("_loss", "_ce")] == pytest.approx(theirs[name], abs=1e-3)
    if "preset" in options:
        assert ours["eval_one_emo_loss"] < 0.9 * ours["eval_one_loss"]
    predicted = mixed.predict(texts)
    assert predicted.metrics["test_loss"] == pytest.approx(theirs["eval_one_loss"], abs=1e-5)
    assert predicted.predictions.shape[-1] == 300


def test_evaluation_for_the_loss_alone_never_makes_the_logits_of_all_tokens(bank: Bank, arguments: Any, texts: Any):
    for check_loss in (False, True):
        trainer = EMOTrainer(gpt2(), arguments(), eval_dataset=texts, emo=bank, emo_check_loss=check_loss)
        widths = []
        trainer.model.lm_head.register_forward_hook(lambda _m, _i, output, seen=widths: seen.append(output.shape[1]))
        trainer.evaluate()
        # The optional comparison with the model's own loss needs all logits of the first batch once.
        assert [width for width in widths if width > 4] == [texts.ids.shape[1]] * check_loss
    trainer.compute_metrics = lambda predicted: {"rows": len(predicted.predictions)}
    assert trainer.evaluate()["eval_rows"] == len(texts)
    assert widths[-1] > 4


def test_training_never_makes_the_logits_of_all_tokens(bank: Bank, arguments: Any, texts: Any):
    for check_loss in (False, True):
        trainer = EMOTrainer(gpt2(), arguments(), train_dataset=texts, emo=bank, emo_check_loss=check_loss)
        widths = []
        trainer.model.lm_head.register_forward_hook(lambda _m, _i, output, seen=widths: seen.append(output.shape[1]))
        trainer.train()
        # One call measures the logits' transform at a few positions, one is the optional comparison, and one belongs to
        # each step.
        assert widths == [4, *([texts.ids.shape[1]] if check_loss else []), 1, 1, 1]


def test_the_parts_of_the_loss_are_logged(bank: Bank, arguments: Any, texts: Any):
    trainer = EMOTrainer(gpt2(), arguments(logging_steps=3, gradient_accumulation_steps=3), train_dataset=texts,
                         emo=LinearEMOLoss(bank, objective="emo", mixing="fixed", weight=0.0))  # fmt: skip
    trainer.train()
    (line,) = [line for line in trainer.state.log_history if "loss" in line]
    assert line["ce"] == pytest.approx(line["loss"], rel=0.01)
    assert 0 < line["emd"] < 2
    assert 0 <= line["mean_token_accuracy"] <= 1


def test_a_schedule_follows_the_trainers_steps(bank: Bank, arguments: Any, texts: Any):
    options = EMOOptions(mixing="fixed", weight=Schedule(0.0, 1.0, steps=2))
    mixed = EMOTrainer(gpt2(), arguments(), train_dataset=texts, emo=LinearEMOLoss(bank, options))
    full = by_function(gpt2(), arguments(), texts, EMOLoss(bank, options))
    assert_same(trained(mixed), trained(full))
    lines = [line for line in mixed.state.log_history if "emd" in line]
    for line, weight in zip(lines, (0.0, 0.5, 1.0), strict=True):
        assert line["loss"] == pytest.approx(line["ce"] + weight * line["emd"], abs=2e-4)


def test_a_schedule_without_the_callback_is_refused(bank: Bank, arguments: Any, texts: Any):
    function = compute_loss_func(EMOLoss(bank, objective="emo", mixing="fixed", weight=Schedule(0.0, 1.0, steps=2)))
    trainer = Trainer(gpt2(), arguments(), train_dataset=texts, compute_loss_func=function)
    with pytest.raises(UsageError, match="step is not known") as error:
        trainer.train()
    assert "callbacks=[f]" in error.value.hint


@pytest.mark.parametrize("kind", ["function", "mixin"])
def test_resuming_asks_for_the_same_bank_and_options(
    kind: str, bank: Bank, other_bank: Bank, arguments: Any, texts: Any
):
    def trainer(steps: int, of: Bank, **options: Any) -> Trainer:
        args = arguments(max_steps=steps, save_strategy="steps", save_steps=1)
        if kind == "function":
            return by_function(gpt2(), args, texts, EMOLoss(of, **options))
        return EMOTrainer(gpt2(), args, train_dataset=texts, emo=LinearEMOLoss(of, **options))

    whole = trained(trainer(3, bank))
    trainer(2, bank).train()
    with pytest.raises(UsageError, match=rf"{bank.id} smoothing over .*, but this loss has tiny@{other_bank.id}"):
        trainer(3, other_bank).train(resume_from_checkpoint=True)
    with pytest.raises(UsageError, match=r"mixing='interpolate', now 'fixed'; weight=0.1, now 0.5"):
        trainer(3, bank, mixing="fixed", weight=0.5).train(resume_from_checkpoint=True)
    last = trainer(3, bank, chunk_rows=5)
    last.train(resume_from_checkpoint=True)
    assert_same({n: p.detach() for n, p in last.model.named_parameters()}, whole)


def test_a_run_that_began_without_costs_may_go_on_with_them(bank: Bank, arguments: Any, texts: Any):
    Trainer(gpt2(), arguments(max_steps=1, save_strategy="steps", save_steps=1), train_dataset=texts).train()
    trainer = EMOTrainer(gpt2(), arguments(max_steps=2), train_dataset=texts, emo=bank)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 2


def test_the_wrong_tokenizer_is_refused(bank: Bank, tokenizer: Any, arguments: Any, texts: Any):
    other = make_tokenizer(["entirely different words make different merges"] * 3)
    with pytest.raises(TokenizerError, match=rf"of 300 ids differ .* tiny@{bank.id} \(300\): \d+ is b'"):
        EMOTrainer(gpt2(), arguments(), train_dataset=texts, processing_class=other, emo=bank)
    with pytest.raises(TokenizerError):
        EMOTrainer(gpt2(), arguments(), train_dataset=texts, processing_class=other, emo=EMOLoss(bank), emo_bank=bank)
    EMOTrainer(gpt2(), arguments(), train_dataset=texts, processing_class=tokenizer, emo=bank)


class Processor(ProcessorMixin):
    """A processor for text only."""

    tokenizer_class = "AutoTokenizer"

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.chat_template = tokenizer, None


@pytest.mark.parametrize("wrap", [Processor, lambda tokenizer: tokenizer.backend_tokenizer], ids=["processor", "raw"])
def test_a_processors_and_a_bare_tokenizer_are_compared_with_the_bank(
    wrap: Any, bank: Bank, tokenizer: Any, arguments: Any, texts: Any
):
    other = make_tokenizer(["entirely different words make different merges"] * 3)
    for emo in ({"emo": bank}, {"emo": EMOLoss(bank), "emo_bank": bank}):
        with pytest.raises(TokenizerError, match="of 300 ids differ"):
            EMOTrainer(gpt2(), arguments(), train_dataset=texts, processing_class=wrap(other), **emo)
        EMOTrainer(gpt2(), arguments(), train_dataset=texts, processing_class=wrap(tokenizer), **emo)
    # A loss without its bank is not checked.
    EMOTrainer(gpt2(), arguments(), train_dataset=texts, processing_class=wrap(other), emo=EMOLoss(bank))


@pytest.mark.parametrize("emo", [LinearEMOLoss, EMOLoss])
def test_the_auxiliary_loss_of_experts_is_added_once(emo: Any, bank: Bank, arguments: Any, texts: Any):
    def model() -> MixtralForCausalLM:
        torch.manual_seed(1)
        return MixtralForCausalLM(MixtralConfig(
            **SMALL, num_local_experts=4, num_experts_per_tok=2, output_router_logits=True, router_aux_loss_coef=0.3
        ))  # fmt: skip

    plain = Trainer(model(), arguments(), train_dataset=texts)
    mixed = EMOTrainer(model(), arguments(), train_dataset=texts, emo=emo(bank, mixing="fixed", weight=0.0))
    assert_same(trained(plain), trained(mixed))
    assert losses(plain) == pytest.approx(losses(mixed), abs=1e-5)


def test_an_encoder_decoders_labels_are_not_shifted(bank: Bank, arguments: Any):
    torch.manual_seed(1)
    model = T5ForConditionalGeneration(T5Config(
        vocab_size=300, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.0,
        decoder_start_token_id=0,
    ))  # fmt: skip
    labels = torch.randint(2, 300, (2, 6))
    batch = {"input_ids": labels.flip(1), "decoder_input_ids": labels.roll(1, 1)}
    loss = EMOLoss(bank)
    outputs = model.train()(**batch)
    assert compute_loss_func(loss)(outputs, labels).item() == pytest.approx(loss(outputs.logits, labels).item())
    trainer = EMOTrainer(model, arguments(), emo=loss)
    assert trainer.compute_loss(model, {**batch, "labels": labels}).item() == pytest.approx(
        loss(outputs.logits, labels).item()
    )


def test_checkpointed_activations_change_nothing(bank: Bank, arguments: Any, texts: Any):
    kept = EMOTrainer(llama(), arguments(), train_dataset=texts, emo=bank)
    again = EMOTrainer(llama(), arguments(activation_checkpointing=True), train_dataset=texts, emo=bank)
    assert_same(trained(kept), trained(again))


def test_heads_that_are_no_plain_matrices_are_named():
    model = llama()
    model.lm_head = torch.nn.Sequential(model.lm_head)
    with pytest.raises(UsageError, match=r"LlamaForCausalLM is Sequential, not a torch.nn.Linear"):
        find_head(model)
    model = llama()
    model.lm_head.weight = torch.nn.Parameter(torch.empty(0))
    with pytest.raises(UsageError, match=r"quantized or offloaded: its weight is torch.float32 of shape \[0\]"):
        find_head(model)
    with pytest.raises(UsageError, match="Linear does not say which part of it is the head"):
        find_head(torch.nn.Linear(2, 2))


def test_arguments_that_contradict_each_other_are_refused(bank: Bank, arguments: Any, texts: Any):
    with pytest.raises(UsageError, match="both emo= and compute_loss_func="):
        EMOTrainer(gpt2(), arguments(), emo=bank, compute_loss_func=compute_loss_func(EMOLoss(bank)))
    with pytest.raises(UsageError, match="label_smoothing_factor"):
        EMOTrainer(gpt2(), arguments(label_smoothing_factor=0.1), emo=bank)
    with pytest.raises(UsageError, match="label_smoothing_factor"):
        by_function(gpt2(), arguments(label_smoothing_factor=0.1), texts, EMOLoss(bank))
    with pytest.raises(UsageError, match="ignore_index is 0"):
        EMOTrainer(gpt2(), arguments(), emo=LinearEMOLoss(bank, ignore_index=0))
    with pytest.raises(UsageError, match="ignore_index is 0"):
        compute_loss_func(EMOLoss(bank, ignore_index=0))
    with pytest.raises(UsageError, match=r"softcap is 3.0, but that of GPT2LMHeadModel is None"):
        EMOTrainer(gpt2(), arguments(), train_dataset=texts, emo=LinearEMOLoss(bank, softcap=3.0)).train()
    with pytest.raises(UsageError, match="compiled model"):
        EMOTrainer(gpt2(), arguments(torch_compile=True, torch_compile_backend="eager"), emo=bank)
    with pytest.raises(UsageError, match="the batch has no labels"):
        EMOTrainer(gpt2(), arguments(), emo=bank).compute_loss(gpt2(), {"input_ids": torch.zeros(1, 2).long()})


NO_LOSS = {
    "costs": (lambda bank: open_costs(bank, "dense"), "of type DenseCosts", "(costs)"),
    "nothing": (lambda _: None, "missing", "(bank)"),
    "options": (lambda _: EMOOptions(), "of type EMOOptions", "(bank, options)"),
    "a class": (lambda _: EMOLoss, "the class EMOLoss itself", "(bank)"),
    "rows": (lambda bank: torch.from_numpy(bank.matrix()), "of type Tensor", "(DenseCosts(rows))"),
    "an array": (lambda bank: bank.matrix(), "of type ndarray", "(bank)"),
    "another loss": (lambda _: torch.nn.CrossEntropyLoss(), "of type CrossEntropyLoss", "(bank)"),
    "a function": (lambda bank: compute_loss_func(EMOLoss(bank)), "of type ComputeLoss", "(bank)"),
}


@pytest.mark.parametrize(("make", "message", "hint"), NO_LOSS.values(), ids=NO_LOSS)
def test_a_wrong_emo_argument_is_refused_with_a_hint(make: Any, message: str, hint: str, bank: Bank, arguments: Any):
    with pytest.raises(UsageError) as caught:
        EMOTrainer(gpt2(), arguments(), emo=make(bank))
    assert f"emo= is {message}" in caught.value.message
    assert caught.value.hint == f"give LinearEMOLoss{hint}"
    with pytest.raises(UsageError) as caught:
        compute_loss_func(make(bank))
    assert f"the loss is {message}" in caught.value.message
    assert caught.value.hint == f"give EMOLoss{hint}"


def test_an_emo_bank_that_is_none_is_refused(bank: Bank, arguments: Any):
    with pytest.raises(UsageError, match="emo_bank= is of type int, not a bank") as caught:
        EMOTrainer(gpt2(), arguments(), emo=EMOLoss(bank), emo_bank=3)
    assert "its name, path or URL" in caught.value.hint


def test_a_name_a_path_and_a_url_stand_for_their_bank(
    bank: Bank, arguments: Any, texts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store, name = bank.path.parents[1], bank.path.parent.name
    monkeypatch.setenv("COSTBANK_STORE", str(store))
    monkeypatch.setenv("COSTBANK_CACHE", str(tmp_path / "cache"))
    expected = trained(EMOTrainer(gpt2(), arguments(), train_dataset=texts, emo=bank))
    with serving(Settings(store=store, port=0)) as url:
        references = [name, f"{name}@{bank.id[:6]}", bank.path, f"{url}/v1/banks/{name}@{bank.id[:6]}"]
        for reference in references:
            assert_same(trained(EMOTrainer(gpt2(), arguments(), train_dataset=texts, emo=reference)), expected, 0.0)
            assert compute_loss_func(reference).loss.pin == EMOLoss(bank).pin
    with pytest.raises(TokenizerError):
        EMOTrainer(gpt2(), arguments(), emo=bank.path, processing_class=make_tokenizer(["some other words"]))
    for wrong in ({"emo": "not-there"}, {"emo": EMOLoss(bank), "emo_bank": "not-there"}):
        with pytest.raises(BankNotFoundError):
            EMOTrainer(gpt2(), arguments(), **wrong)


def test_the_function_takes_a_bank_and_either_loss(bank: Bank, arguments: Any, texts: Any):
    runs = [trained(by_function(gpt2(), arguments(), texts, loss))
            for loss in (EMOLoss(bank), bank, LinearEMOLoss(bank), torch.compile(EMOLoss(bank)))]  # fmt: skip
    for run in runs[1:]:
        assert_same(run, runs[0], 0.0)


def test_a_batch_of_ignored_labels_trains_nothing_and_is_finite(bank: Bank, arguments: Any, texts: Any):
    texts.labels[:] = -100
    trainer = EMOTrainer(gpt2(), arguments(max_steps=1), train_dataset=texts, emo=bank)
    before = copy.deepcopy(dict(trainer.model.named_parameters()))
    assert_same(trained(trainer), before, 0.0)
    assert all(math.isfinite(value) for value in losses(trainer))


def test_autocast_in_bfloat16_stays_close(bank: Bank, arguments: Any, texts: Any, tmp_path: Path):
    exact = EMOTrainer(llama(), arguments(), train_dataset=texts, emo=bank)
    rounded = EMOTrainer(llama(), arguments(bf16=True), train_dataset=texts, emo=bank)
    assert_same(trained(exact), trained(rounded), 2e-2)
    assert losses(exact) == pytest.approx(losses(rounded), abs=2e-2)


def test_first_labels_that_nothing_predicts_are_not_counted(bank: Bank, arguments: Any, texts: Any):
    texts.labels = texts.ids.masked_fill(texts.mask == 0, -100)
    for model in (gpt2(), llama()):
        trainer = EMOTrainer(model, arguments(), train_dataset=texts, eval_dataset=texts,
                             emo=LinearEMOLoss(bank, mixing="fixed", weight=0.0))  # fmt: skip
        metrics = trainer.evaluate()
        assert metrics["eval_loss"] == pytest.approx(metrics["eval_ce"], abs=1e-5)
