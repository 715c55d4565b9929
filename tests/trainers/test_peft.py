"""Models that PEFT wraps train with the mixin and the function as with full logits."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from lightning import LightningModule
from peft import (
    AdaLoraConfig,
    CPTConfig,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    TaskType,
    get_peft_model,
)
from safetensors import safe_open
from transformers import PreTrainedTokenizerFast, Trainer
from trl import SFTConfig, SFTTrainer

from costbank.bank import Bank
from costbank.errors import ShapeError, UsageError
from costbank.loss import EMOLoss, LinearEMOLoss
from costbank.trainers.heads import find_head
from costbank.trainers.huggingface import EMOTrainerMixin, compute_loss_func
from costbank.trainers.lightning import EMOLightningMixin
from costbank.trainers.logit_check import LogitCheck
from costbank.trainers.logit_transform import LogitTransform
from tests.trainers.conftest import TEXTS, gemma2, gpt2, llama
from tests.trainers.test_huggingface import EMOTrainer, assert_same, by_function, losses, trained
from tests.trainers.test_lightning import fit

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

ATTENTION = ["q_proj", "v_proj"]
MODELS = {
    "gpt2, tied": (gpt2, ["c_attn"]),
    "llama, untied": (llama, ATTENTION),
    "gemma2, softcap": (gemma2, ATTENTION),
}
EMBEDDING = {gpt2: "wte", llama: "embed_tokens", gemma2: "embed_tokens"}


def lora(make: Any = llama, targets: list[str] | None = None, **changes: Any) -> Any:
    """A tiny model with adapters that, as usual, change nothing at first."""
    model = make()
    torch.manual_seed(3)
    targets = ATTENTION if targets is None else targets
    return get_peft_model(model, LoraConfig(task_type=TaskType.CAUSAL_LM, target_modules=targets, r=4, **changes))


def prompted(kind: Any = PromptTuningConfig, make: Any = llama, **changes: Any) -> Any:
    model = make()
    torch.manual_seed(3)
    return get_peft_model(model, kind(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=5, **changes))


def frozen(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters() if not value.requires_grad}


def assert_trains_alike(make: Any, bank: Bank, arguments: Any, texts: Any, **changes: Any) -> Any:
    """The linear loss and the loss of full logits train to the same weights, and change only adapters."""
    full = by_function(make(), arguments(**changes), texts, EMOLoss(bank))
    linear = EMOTrainer(make(), arguments(**changes), train_dataset=texts, emo=LinearEMOLoss(bank))
    before, start = frozen(linear.model), {n: p.detach().clone() for n, p in linear.model.named_parameters()}
    after = trained(linear)
    assert_same(after, trained(full))
    assert losses(linear) == pytest.approx(losses(full), abs=1e-5)
    assert_same({name: after[name] for name in before}, before, 0.0)
    assert max((after[name] - start[name]).abs().max() for name in after) > 1e-3
    return linear


@pytest.mark.parametrize(("make", "targets"), MODELS.values(), ids=MODELS.keys())
def test_lora_trains_as_with_the_logits_of_all_tokens(
    make: Any, targets: list[str], bank: Bank, arguments: Any, texts: Any
):
    linear = assert_trains_alike(lambda: lora(make, targets), bank, arguments, texts)
    assert not find_head(linear.model).linear.weight.requires_grad
    assert find_head(linear.model).linear.weight.grad is None


def test_no_gradient_of_a_frozen_head_is_computed(
    bank: Bank, arguments: Any, texts: Any, monkeypatch: pytest.MonkeyPatch
):
    def never(*_arguments: Any) -> None:
        raise AssertionError("the gradient of a frozen head was computed")

    monkeypatch.setattr("costbank.loss.engine.from_hidden.add_product_", never)
    EMOTrainer(lora(), arguments(max_steps=1), train_dataset=texts, emo=bank).train()
    with pytest.raises(AssertionError, match="frozen head"):
        EMOTrainer(llama(), arguments(max_steps=1), train_dataset=texts, emo=bank).train()


def test_training_never_makes_the_logits_of_all_tokens(bank: Bank, arguments: Any, texts: Any):
    trainer = EMOTrainer(lora(modules_to_save=["lm_head"]), arguments(), train_dataset=texts, emo=bank,
                         emo_check_loss=False)  # fmt: skip
    widths = []
    find_head(trainer.model).linear.register_forward_hook(lambda _m, _i, output: widths.append(output.shape[1]))
    trainer.train()
    assert set(widths) == {4, 1}


def test_adapters_of_transformers_own_train_alike(bank: Bank, arguments: Any, texts: Any):
    def make() -> Any:
        model = llama()
        torch.manual_seed(3)
        model.add_adapter(LoraConfig(target_modules=ATTENTION, r=4))
        return model

    assert_trains_alike(make, bank, arguments, texts)


def test_mixed_adapters_train_alike(bank: Bank, arguments: Any, texts: Any):
    def make() -> Any:
        model = llama()
        torch.manual_seed(3)
        return get_peft_model(model, LoraConfig(task_type=TaskType.CAUSAL_LM, target_modules=ATTENTION), mixed=True)

    assert_trains_alike(make, bank, arguments, texts)


def test_an_adapter_without_a_head_of_its_own_has_the_models(bank: Bank):
    model = lora(modules_to_save=["lm_head"])
    model.add_adapter("plain", LoraConfig(task_type=TaskType.CAUSAL_LM, target_modules=ATTENTION))
    wrapper = model.get_base_model().lm_head
    assert find_head(model).linear is wrapper.modules_to_save["default"]
    model.set_adapter("plain")
    assert find_head(model).linear is wrapper.original_module


def test_adapters_in_float32_on_a_model_in_bfloat16_train_alike(bank: Bank, arguments: Any, texts: Any):
    linear, full = (
        EMOTrainer(lora(lambda: llama().to(torch.bfloat16)), arguments(), train_dataset=texts, emo=emo(bank))
        for emo in (LinearEMOLoss, EMOLoss)
    )
    assert {p.dtype for p in linear.model.parameters() if p.requires_grad} == {torch.float32}
    assert_same(trained(linear), trained(full), 5e-3)
    assert losses(linear) == pytest.approx(losses(full), abs=1e-2)


@pytest.mark.parametrize(("make", "targets"), MODELS.values(), ids=MODELS.keys())
def test_a_head_that_is_trained_whole_trains_alike(
    make: Any, targets: list[str], bank: Bank, arguments: Any, texts: Any
):
    linear = assert_trains_alike(lambda: lora(make, targets, modules_to_save=["lm_head"]), bank, arguments, texts)
    wrapper = linear.model.get_output_embeddings()
    head = find_head(linear.model).linear
    assert head is wrapper.modules_to_save["default"]
    assert (head.weight - wrapper.original_module.weight).abs().max() > 1e-3
    with linear.model.disable_adapter():
        assert find_head(linear.model).linear is wrapper.original_module


@pytest.mark.parametrize(("make", "tying"), [(gpt2, False), (gemma2, False), (gemma2, True)])
def test_tied_embeddings_that_are_trained_whole_train_alike(
    make: Any, tying: bool, bank: Bank, arguments: Any, texts: Any
):
    targets = ["c_attn"] if make is gpt2 else ATTENTION

    def adapted() -> Any:
        return lora(make, targets, modules_to_save=[EMBEDDING[make]], ensure_weight_tying=tying)

    linear = assert_trains_alike(adapted, bank, arguments, texts)
    embedding = linear.model.get_input_embeddings().modules_to_save["default"].weight
    assert (find_head(linear.model).linear.weight is embedding) == tying


def test_adapted_embeddings_beside_a_tied_head_train_alike(bank: Bank, arguments: Any, texts: Any):
    assert_trains_alike(lambda: lora(gemma2, [*ATTENTION, "embed_tokens"]), bank, arguments, texts)


HEADS = {
    "lora": lambda: lora(llama, [*ATTENTION, "lm_head"], lora_alpha=12),
    "lora of the weight": lambda: lora(llama, [], target_parameters=["lm_head.weight"]),
    "lora, tied": lambda: lora(gpt2, ["lm_head"]),
    "lora and a softcap": lambda: lora(gemma2, ["lm_head"]),
    "lora that keeps the tie": lambda: lora(gemma2, ["embed_tokens"], ensure_weight_tying=True),
    "tokens, tied": lambda: lora(gemma2, trainable_token_indices=[5, 6, 7]),
}


@pytest.mark.parametrize("make", HEADS.values(), ids=HEADS.keys())
def test_an_adapted_head_trains_with_its_adapter(make: Any, bank: Bank, arguments: Any, texts: Any):
    """The adapter changes nothing at first, so only training shows whether its product is part of the loss."""
    model = make()
    with torch.no_grad(), model.disable_adapter():
        plain = model(texts.ids[:2]).logits
    torch.testing.assert_close(model(texts.ids[:2]).logits, plain)
    with pytest.raises(UsageError, match=r"the head of \w+ is adapted by PEFT's peft\.\S+"):
        find_head(model)
    assert_trains_alike(make, bank, arguments, texts)


def test_an_adapted_head_that_is_not_a_sum_of_products_is_refused(bank: Bank, arguments: Any, texts: Any):
    """DoRA scales each token's row by a learned factor that starts at 1."""

    def make() -> Any:
        return lora(llama, ["lm_head"], use_dora=True)

    trainer = EMOTrainer(make(), arguments(), train_dataset=texts, emo=bank)
    with pytest.raises(UsageError) as error:
        trainer.train()
    assert "emo=EMOLoss(bank)" in error.value.hint
    assert trainer.state.global_step == 0
    full = EMOTrainer(make(), arguments(), train_dataset=texts, emo=EMOLoss(bank))
    before = frozen(full.model)
    assert_same(trained(full), trained(by_function(make(), arguments(), texts, EMOLoss(bank))))
    assert_same(frozen(full.model), before, 0.0)


def test_the_proof_sees_a_head_that_is_not_the_models(bank: Bank, arguments: Any, texts: Any):
    """The comparison of logits detects a wrong head even if the model's structure shows nothing unusual."""
    model = lora(modules_to_save=["lm_head"])
    with torch.no_grad():
        model.get_output_embeddings().original_module.weight += 0.1
    head = find_head(model)
    with head.hidden_states() as caught, torch.no_grad():
        logits = model(texts.ids[:2], logits_to_keep=1).logits
    assert logits.shape[1] == 1
    assert caught[0].shape[:2] == texts.ids[:2].shape
    form = LogitTransform(logits.shape[-1])
    check = LogitCheck()
    check.add(head, form, caught[0], logits, tolerance=1e-3)
    check.check("it", form)
    assert check.verified
    wrong = replace(head, linear=model.get_output_embeddings().original_module)
    check.add(wrong, form, caught[0], logits, tolerance=1e-3)
    with pytest.raises(UsageError, match="are not its hidden states times its head's weight"):
        check.check("it", form)


PROMPTS = {"prompt": PromptTuningConfig, "p-tuning": PromptEncoderConfig, "prefix": PrefixTuningConfig}


def with_first_labels(texts: Any) -> Any:
    texts.labels = texts.ids.masked_fill(texts.mask == 0, -100)
    texts.labels[::3, :2] = -100
    return texts


@pytest.mark.parametrize("kind", PROMPTS.values(), ids=PROMPTS.keys())
@pytest.mark.parametrize("make", [gpt2, llama, gemma2])
def test_virtual_tokens_train_as_with_the_logits_of_all_tokens(
    kind: Any, make: Any, bank: Bank, arguments: Any, texts: Any
):
    texts = with_first_labels(texts)
    linear, full = (
        EMOTrainer(prompted(kind, make), arguments(), train_dataset=texts, emo=emo(bank))
        for emo in (LinearEMOLoss, EMOLoss)
    )
    before = {name: p.detach().clone() for name, p in linear.model.named_parameters()}
    after = trained(linear)
    assert_same(after, trained(full))
    assert losses(linear) == pytest.approx(losses(full), abs=1e-5)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved
    assert all(name.startswith("prompt_encoder.") for name in moved)


@pytest.mark.parametrize("kind", PROMPTS.values(), ids=PROMPTS.keys())
def test_virtual_tokens_have_no_labels_and_the_last_predicts_the_first_label(
    kind: Any, bank: Bank, arguments: Any, texts: Any
):
    """Compared with the cross-entropy that PEFT and the model compute themselves."""
    texts = with_first_labels(texts)
    model = prompted(kind)
    trainer = EMOTrainer(model, arguments(per_device_eval_batch_size=24), train_dataset=texts, eval_dataset=texts,
                         emo=LinearEMOLoss(bank, mixing="fixed", weight=0.0))  # fmt: skip
    with torch.no_grad():
        own = model.eval()(input_ids=texts.ids, attention_mask=texts.mask, labels=texts.labels).loss.item()
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] == pytest.approx(own, abs=1e-5)
    assert metrics["eval_ce"] == pytest.approx(own, abs=1e-5)
    predicted = texts.labels if kind is not PrefixTuningConfig else texts.labels[:, 1:]
    counted = trainer.get_batch_samples(iter([{"labels": texts.labels}]), 1, torch.device("cpu"))[1]
    assert counted == (predicted != -100).sum()


@pytest.mark.parametrize("emo", [LinearEMOLoss, EMOLoss])
def test_four_batches_of_two_are_one_of_eight_after_virtual_tokens(emo: Any, bank: Bank, arguments: Any, texts: Any):
    texts = with_first_labels(texts)
    whole = EMOTrainer(prompted(), arguments(), train_dataset=texts, emo=emo(bank))
    parted = EMOTrainer(prompted(), arguments(per_device_train_batch_size=2, gradient_accumulation_steps=4),
                        train_dataset=texts, emo=emo(bank))  # fmt: skip
    assert_same(trained(whole), trained(parted))
    assert losses(whole) == pytest.approx(losses(parted), abs=1e-5)


def test_the_model_without_its_prompt_can_be_evaluated(bank: Bank, arguments: Any, texts: Any):
    trainer = EMOTrainer(prompted(), arguments(), eval_dataset=texts, emo=bank)
    plain = EMOTrainer(llama(), arguments(), eval_dataset=texts, emo=bank)
    with trainer.model.disable_adapter():
        assert trainer.evaluate()["eval_loss"] == pytest.approx(plain.evaluate()["eval_loss"], abs=1e-5)


def test_the_function_refuses_rows_that_it_cannot_label(bank: Bank, arguments: Any, texts: Any):
    trainer = by_function(prompted(), arguments(), texts, EMOLoss(bank))
    with pytest.raises(ShapeError, match=r"logits of shape \[8, \d+, 300\] for labels") as error:
        trainer.train()
    assert "EMOTrainerMixin" in error.value.hint
    assert trainer.state.global_step == 0


def test_the_function_trains_a_prefix(bank: Bank, arguments: Any, texts: Any):
    function = by_function(prompted(PrefixTuningConfig), arguments(), texts, EMOLoss(bank))
    mixed = EMOTrainer(prompted(PrefixTuningConfig), arguments(), train_dataset=texts, emo=bank)
    assert_same(trained(function), trained(mixed))


@pytest.mark.parametrize("kind", ["function", "mixin"])
def test_adapters_with_a_loss_of_their_own_are_refused(kind: str, bank: Bank, arguments: Any, texts: Any):
    def trainer(model: Any) -> Trainer:
        if kind == "function":
            return by_function(model, arguments(), texts, EMOLoss(bank))
        return EMOTrainer(model, arguments(), train_dataset=texts, emo=bank)

    def adalora(**changes: Any) -> Any:
        config = AdaLoraConfig(task_type=TaskType.CAUSAL_LM, target_modules=ATTENTION, total_step=3, **changes)
        return get_peft_model(llama(), config)

    with pytest.raises(UsageError, match=r"AdaLoraConfig adds orth_reg_weight=0.5 times a loss") as error:
        trainer(adalora())
    assert "orth_reg_weight=0" in error.value.hint
    trainer(adalora(orth_reg_weight=0.0)).train()
    cpt = CPTConfig(task_type=TaskType.CAUSAL_LM, cpt_token_ids=[5, 6], cpt_mask=[1, 1], cpt_tokens_type_mask=[1, 4])
    with pytest.raises(UsageError, match="CPT"):
        trainer(get_peft_model(llama(), cpt))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_activations_change_nothing(reentrant: bool, bank: Bank, arguments: Any, texts: Any):
    kept = EMOTrainer(lora(), arguments(), train_dataset=texts, emo=bank)
    again = EMOTrainer(
        lora(), arguments(gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": reentrant}),
        train_dataset=texts, emo=bank,
    )  # fmt: skip
    assert_same(trained(kept), trained(again))
    assert again.model.get_base_model().is_gradient_checkpointing


@pytest.mark.parametrize("kind", ["function", "mixin"])
def test_resuming_goes_on_from_the_adapters_with_the_same_bank_alone(
    kind: str, bank: Bank, other_bank: Bank, arguments: Any, texts: Any
):
    def trainer(steps: int, of: Bank) -> Trainer:
        args, model = arguments(max_steps=steps, save_strategy="steps", save_steps=1), lora(modules_to_save=["lm_head"])
        if kind == "function":
            return by_function(model, args, texts, EMOLoss(of))
        return EMOTrainer(model, args, train_dataset=texts, emo=of)

    whole = trained(trainer(3, bank))
    half = trainer(2, bank)
    half.train()
    with pytest.raises(UsageError, match=rf"{bank.id} smoothing over .*, but this loss has tiny@{other_bank.id}"):
        trainer(3, other_bank).train(resume_from_checkpoint=True)
    last = trainer(3, bank)
    last.train(resume_from_checkpoint=True)
    assert_same({name: p.detach() for name, p in last.model.named_parameters()}, whole)
    with safe_open(Path(last.args.output_dir) / "checkpoint-3" / "adapter_model.safetensors", "pt") as saved:
        names = set(saved.keys())
    assert all("lora_" in name or "lm_head" in name for name in names)
    assert len(names) == 2 * 2 * len(ATTENTION) + 1


def test_evaluation_and_generation_are_the_models_own(bank: Bank, arguments: Any, texts: Any):
    trainer = EMOTrainer(lora(modules_to_save=["lm_head"]), arguments(per_device_eval_batch_size=24),
                         train_dataset=texts, eval_dataset=texts, emo=bank)  # fmt: skip
    trainer.train()
    with torch.no_grad():
        logits = trainer.model.eval()(input_ids=texts.ids, attention_mask=texts.mask).logits
    metrics = trainer.evaluate()
    assert metrics["eval_emo_loss"] == pytest.approx(EMOLoss(bank, shift=True)(logits, texts.labels).item(), abs=1e-5)
    torch.testing.assert_close(torch.from_numpy(trainer.predict(texts).predictions), logits)
    generated = trainer.model.generate(input_ids=texts.ids[:1, :4], max_new_tokens=1, min_new_tokens=1, do_sample=False)
    assert generated[0, 4] == logits[0, 3].argmax()


@pytest.mark.parametrize("merged", ["attention", "attention and head"])
def test_a_merged_model_has_the_trained_models_logits(merged: str, bank: Bank, arguments: Any, texts: Any):
    model = lora(modules_to_save=["lm_head"] if merged != "attention" else None)
    EMOTrainer(model, arguments(), train_dataset=texts, emo=bank).train()
    with torch.no_grad():
        before = llama()(texts.ids).logits
        own = model.eval()(texts.ids).logits
        plain = model.merge_and_unload()
        torch.testing.assert_close(plain(texts.ids).logits, own, rtol=0, atol=1e-5)
    assert (own - before).abs().max() > 1e-3
    assert not isinstance(plain, PeftModel)
    assert find_head(plain).linear is plain.lm_head


class EMOSFTTrainer(EMOTrainerMixin, SFTTrainer):
    pass


WHOLE = Dataset.from_dict({"text": TEXTS})


@pytest.fixture
def sft(arguments: Any, tokenizer: PreTrainedTokenizerFast) -> Any:
    def make(kind: Any, adapter: Any = None, config: dict[str, Any] | None = None, **more: Any) -> SFTTrainer:
        args = arguments(SFTConfig, **{"max_length": 64, "activation_checkpointing": False, **(config or {})})
        adapter = adapter or LoraConfig(task_type=TaskType.CAUSAL_LM, target_modules=ATTENTION, r=4)
        return kind(llama(), args, train_dataset=WHOLE, eval_dataset=WHOLE, processing_class=tokenizer,
                    peft_config=adapter, **more)  # fmt: skip

    return make


@pytest.mark.parametrize("config", [{}, {"packing": True, "max_length": 32}, {"activation_checkpointing": True}])
def test_trls_trainer_makes_the_adapters_and_trains_alike(config: dict[str, Any], sft: Any, bank: Bank):
    function = compute_loss_func(EMOLoss(bank))
    full = sft(SFTTrainer, config=config, compute_loss_func=function, callbacks=[function])
    linear = sft(EMOSFTTrainer, config=config, emo=LinearEMOLoss(bank), emo_bank=bank)
    before = frozen(linear.model)
    assert before
    after = trained(linear)
    assert_same(after, trained(full))
    assert losses(linear) == pytest.approx(losses(full), abs=1e-5)
    assert_same({name: after[name] for name in before}, before, 0.0)
    assert linear.evaluate()["eval_emo_loss"] == pytest.approx(full.evaluate()["eval_loss"], abs=1e-5)


@pytest.mark.parametrize("kind", ["function", "linear"])
def test_four_batches_of_two_are_one_of_eight_in_trls_trainer(kind: str, sft: Any, bank: Bank):
    def trainer(config: dict[str, Any]) -> SFTTrainer:
        if kind == "linear":
            return sft(EMOSFTTrainer, config=config, emo=bank)
        function = compute_loss_func(EMOLoss(bank))
        return sft(SFTTrainer, config=config, compute_loss_func=function, callbacks=[function])

    whole = trainer({})
    parted = trainer({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4})
    assert_same(trained(whole), trained(parted))
    assert losses(whole) == pytest.approx(losses(parted), abs=1e-5)


def test_trls_trainer_trains_a_prompt(sft: Any, bank: Bank):
    adapter = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=5)
    linear, full = (sft(EMOSFTTrainer, adapter, emo=emo(bank)) for emo in (LinearEMOLoss, EMOLoss))
    assert_same(trained(linear), trained(full))
    assert losses(linear) == pytest.approx(losses(full), abs=1e-5)


class Module(EMOLightningMixin, LightningModule):
    def __init__(self, loss: EMOLoss | LinearEMOLoss, model: Any) -> None:
        super().__init__()
        self.model, self.emo = model, loss

    def training_step(self, batch: dict[str, torch.Tensor], _index: int) -> torch.Tensor:
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        if isinstance(self.emo, EMOLoss):
            return self.emo_step(self.emo, self.model(**inputs).logits, batch["labels"])
        head = find_head(self.model)
        with head.hidden_states() as caught:
            self.model(**inputs, logits_to_keep=1)
        return self.emo_step(self.emo, caught[0], head.linear.weight, batch["labels"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD((p for p in self.parameters() if p.requires_grad), lr=0.5)


@pytest.mark.parametrize("whole", [None, ["lm_head"]], ids=["head frozen", "head whole"])
def test_a_lightning_module_trains_alike(whole: list[str] | None, bank: Bank, texts: Any, tmp_path: Path):
    linear = Module(LinearEMOLoss(bank, shift=True), lora(modules_to_save=whole))
    full = Module(EMOLoss(bank, shift=True), lora(modules_to_save=whole))
    before = {name: p.detach().clone() for name, p in linear.named_parameters()}
    still = frozen(linear)
    fit(linear, texts, tmp_path)
    fit(full, texts, tmp_path)
    after = {name: p.detach() for name, p in linear.named_parameters()}
    assert_same(after, {name: p.detach() for name, p in full.named_parameters()})
    assert_same({name: after[name] for name in still}, still, 0.0)
    assert max((after[name] - before[name]).abs().max() for name in after) > 1e-3
    with pytest.raises(UsageError, match="adapted by PEFT"):
        fit(Module(LinearEMOLoss(bank, shift=True), lora(targets=["lm_head"])), texts, tmp_path)
