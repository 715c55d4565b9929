"""The loss is the model's own: operations after the head, label shift, decoder inputs and auxiliary losses."""

import logging
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import transformers as tf
from torch import nn

from costbank.bank import Bank
from costbank.errors import UsageError
from costbank.loss import EMOLoss, EMOOptions, LinearEMOLoss, emo_loss, linear_emo_loss, open_costs
from costbank.trainers.decoder_inputs import with_decoder_inputs
from costbank.trainers.heads import find_head
from costbank.trainers.huggingface import EMOTrainerMixin, compute_loss_func
from costbank.trainers.label_shift import measure_shift
from costbank.trainers.labeled_batch import LabeledBatch
from costbank.trainers.logit_check import LogitCheck
from costbank.trainers.logit_transform import measure_logits
from costbank.trainers.own_loss import compare_own_loss
from tests.trainers.conftest import SMALL, VOCAB, llama

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

IDS = torch.randint(2, VOCAB, (2, 9), generator=torch.Generator().manual_seed(0))
BERT = {"vocab_size": VOCAB, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0}  # fmt: skip
BART = {"vocab_size": VOCAB, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "dropout": 0.0,
        "max_position_embeddings": 64, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 1,
        "forced_eos_token_id": None}  # fmt: skip
CE = {"mixing": "fixed", "weight": 0.0}


class EMOTrainer(EMOTrainerMixin, tf.Trainer):
    pass


class Named(tf.LlamaForCausalLM):
    """A model with remote code: a softcap under another name, or any `change` of the logits."""

    change: Any = None

    def forward(self, *arguments: Any, labels: Any = None, **named: Any) -> Any:
        outputs = super().forward(*arguments, **named)
        outputs.logits = type(self).change(self, outputs.logits)
        if labels is not None:
            outputs.loss = self.loss_function(outputs.logits, labels, self.vocab_size)
        return outputs


def named(change: Any, **config: Any) -> Named:
    torch.manual_seed(1)
    return type("Named", (Named,), {"change": change})(tf.LlamaConfig(**SMALL, tie_word_embeddings=False, **config))


def build(name: str, config: str | None = None, **changes: Any) -> Any:
    torch.manual_seed(1)
    kind = getattr(tf, name)
    return kind(getattr(tf, config)(**changes) if config else kind.config_class(**changes))


def form_of(model: Any) -> Any:
    return measure_logits(find_head(model), lambda: model.eval()(input_ids=IDS)).transform


SCALED = {
    "cohere": (lambda: build("CohereForCausalLM", **SMALL, logit_scale=0.0625), 0.0625, None),
    "granite": (lambda: build("GraniteForCausalLM", **SMALL, logits_scaling=13.0), 1 / 13.0, None),
    "gemma 2": (lambda: build("Gemma2ForCausalLM", **SMALL, head_dim=8, final_logit_softcapping=30.0), 1.0, 30.0),
    "another name": (lambda: named(lambda _, z: 20.0 * torch.tanh(z / 20.0)), 1.0, 20.0),
    "not applied": (lambda: named(lambda _, z: z, final_logit_softcapping=5.0), 1.0, None),
    "scale and softcap": (lambda: named(lambda _, z: 7.0 * torch.tanh(0.3 * z / 7.0)), 0.3, 7.0),
    "softcap, then scale": (lambda: named(lambda _, z: 0.5 * 7.0 * torch.tanh(z / 7.0)), 0.5, 3.5),
    "scaled up": (lambda: named(lambda _, z: z * 12.0), 12.0, None),
}


@pytest.mark.parametrize(("make", "scale", "softcap"), SCALED.values(), ids=SCALED.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scale_and_softcap_are_what_the_model_does(make: Any, scale: float, softcap: float | None, dtype: Any):
    model = make().to(dtype)
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    form = form_of(model)
    near = 1e-5 if dtype == torch.float32 else 1e-2
    assert form.scale == pytest.approx(scale, rel=near)
    assert form.softcap == (None if softcap is None else pytest.approx(softcap, rel=near))
    assert form.offset is None


@pytest.mark.parametrize("make", [value[0] for value in SCALED.values()], ids=SCALED.keys())
@pytest.mark.parametrize("size", [0.02, 20.0], ids=["small logits", "large logits"])
def test_the_linear_loss_is_that_of_the_models_logits(make: Any, size: float, bank: Bank):
    model = make().eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.normal_().mul_(size)
    form, head = form_of(model), find_head(model)
    gradients, losses = [], []
    for linear in (True, False):
        model.zero_grad()
        if linear:
            with head.hidden_states() as caught:
                model(input_ids=IDS)
            loss = linear_emo_loss(caught[0], form.weight(head.linear), IDS, open_costs(bank),
                                   form.options(EMOOptions(shift=True)), bias=form.bias(head.linear))  # fmt: skip
        else:
            loss = emo_loss(model(input_ids=IDS).logits, IDS, open_costs(bank), EMOOptions(shift=True))
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert (gradients[0] - gradients[1]).norm() <= 1e-4 * gradients[1].norm()


def test_a_bias_after_the_head_and_masked_tokens_are_applied(bank: Bank):
    model = build("BartForConditionalGeneration", **BART).eval()
    model.final_logits_bias.normal_()
    form = form_of(model)
    torch.testing.assert_close(form.offset, model.final_logits_bias[0], rtol=0, atol=1e-6)
    masked = named(lambda _, z: z.index_fill(-1, torch.tensor([3, 5]), torch.finfo(z.dtype).min))
    assert form_of(masked).offset.isneginf().nonzero().flatten().tolist() == [3, 5]
    assert str(form_of(masked)) == "2 masked tokens"
    assert form_of(named(lambda _, z: z[..., :290])).width == 290


UNLIKE = {
    "square": (lambda _, z: z * z.abs(), "neither a scale nor a softcap"),
    "log softmax": (lambda _, z: z.log_softmax(-1), "neither a scale nor a softcap"),
    "other columns": (lambda _, z: z.roll(1, -1), "neither a scale nor a softcap"),
    "negative": (lambda _, z: -z, "neither a scale nor a softcap"),
    "all positions": (lambda _, z: z[:, torch.arange(9)], "needs the logits of all positions itself"),
}


@pytest.mark.parametrize(("change", "words"), UNLIKE.values(), ids=UNLIKE.keys())
def test_an_unsupported_change_of_logits_is_refused(change: Any, words: str):
    with pytest.raises(UsageError, match=words) as error:
        form_of(named(change))
    assert "emo=EMOLoss(bank)" in error.value.hint


class LoRALinear(nn.Linear):
    """A layer like loralib's: a subclass of Linear whose adapter is initially zero."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.down, self.up = nn.Parameter(torch.randn(2, 16)), nn.Parameter(torch.zeros(VOCAB, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + x @ self.down.T @ self.up.T


def test_a_head_with_another_forward_is_refused():
    model = llama()
    model.lm_head = LoRALinear(16, VOCAB, bias=False)
    with pytest.raises(UsageError, match=r"LoRALinear, whose forward is not that of torch.nn.Linear"):
        find_head(model)
    model = llama()
    model.lm_head.forward = lambda x: nn.functional.linear(x, model.lm_head.weight) / 2
    with pytest.raises(UsageError, match=r"the forward of the head of LlamaForCausalLM .* has been replaced"):
        find_head(model)
    with torch.device("meta"):
        offloaded = llama()
    with pytest.raises(UsageError, match="offloaded"):
        find_head(offloaded)
    weighted = llama()
    nn.utils.parametrizations.weight_norm(weighted.lm_head)
    assert find_head(weighted).linear is weighted.lm_head


def test_a_compiled_model_is_named_and_a_compiled_backbone_trains(bank: Bank, arguments: Any, texts: Any):
    with pytest.raises(UsageError, match=r"LlamaForCausalLM is compiled as a whole") as error:
        find_head(torch.compile(llama(), backend="eager"))
    assert "base_model.compile()" in error.value.hint
    inside = llama()
    inside.compile(backend="eager")
    with pytest.raises(UsageError, match="compiled as a whole"):
        find_head(inside)
    model = llama()
    model.base_model.compile(backend="eager")
    with torch.no_grad():
        assert str(form_of(model)) == "nothing"


@pytest.mark.parametrize("name", ["OPTForCausalLM", "ElectraForCausalLM", "RemBertForCausalLM"])
def test_hidden_states_are_those_at_the_head(name: str, bank: Bank, arguments: Any, texts: Any):
    more: dict[str, Any] = {"is_decoder": True, **BERT}
    if name == "OPTForCausalLM":
        more = {"vocab_size": VOCAB, "hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
                "max_position_embeddings": 64, "word_embed_proj_dim": 8, "dropout": 0.0}  # fmt: skip
    if name == "ElectraForCausalLM":
        more["embedding_size"] = 12
    if name == "RemBertForCausalLM":
        more |= {"input_embedding_size": 12, "output_embedding_size": 20, "classifier_dropout_prob": 0.0}
    assert_trains_alike(lambda: build(name, **more), bank, arguments, texts)


def assert_trains_alike(make: Any, bank: Bank, arguments: Any, texts: Any, **options: Any) -> None:
    ends = []
    for emo in (LinearEMOLoss, EMOLoss):
        trainer = EMOTrainer(make(), arguments(), train_dataset=texts, emo=emo(bank, **options))
        trainer.train()
        ends.append({name: value.detach().clone() for name, value in trainer.model.named_parameters()})
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("make", [SCALED["cohere"][0], SCALED["granite"][0]], ids=["cohere", "granite"])
def test_a_head_of_zeros_trains_with_the_models_scale(make: Any, bank: Bank, arguments: Any, texts: Any, caplog: Any):
    def zeros() -> Any:
        model = make()
        nn.init.zeros_(model.get_output_embeddings().weight)
        return model

    with caplog.at_level(logging.WARNING, "costbank"):
        assert_trains_alike(zeros, bank, arguments, texts)
    assert "(nearly) equal so far" in caplog.text


def test_the_proof_goes_on_until_logits_say_something():
    model = llama()
    head, check = find_head(model), LogitCheck()
    form = form_of(model)
    hidden, flat = torch.randn(2, 5, 16), torch.full((2, 1, VOCAB), 3.0)
    with torch.no_grad():
        head.linear.weight.zero_()
        check.add(head, form, hidden, flat * 0, tolerance=1e-3)
        check.check("it", form)
        assert not check.verified
        head.linear.weight.normal_()
        check.add(head, form, hidden, head.linear(hidden[:, -1:]), tolerance=1e-3)
        check.check("it", form)
        assert check.verified
        check.add(head, form, hidden, flat, tolerance=1e-3)
        with pytest.raises(UsageError, match="are not its hidden states times"):
            check.check("it", form)


def test_a_model_that_changes_while_it_trains_is_refused_at_the_next_line(bank: Bank, arguments: Any, texts: Any):
    class Late(tf.TrainerCallback):
        def on_step_end(self, _args: Any, _state: Any, _control: Any, **more: Any) -> None:
            more["model"].factor = 0.5

    model = named(lambda m, z: z * m.factor)
    model.factor = 1.0
    args = arguments(remove_unused_columns=False)
    trainer = EMOTrainer(model, args, train_dataset=texts, emo=bank, callbacks=[Late()])
    with pytest.raises(UsageError, match=r"differ by up to 0\.5 of the largest"):
        trainer.train()
    assert trainer.state.global_step == 2


def masked(generator: int = 0) -> Any:
    return IDS.masked_fill(torch.rand(IDS.shape, generator=torch.Generator().manual_seed(3)) < 0.5, -100)


ALIGNED = {
    "bert": (lambda: build("BertForMaskedLM", **BERT), False),
    "roberta": (lambda: build("RobertaForMaskedLM", **BERT), False),
    "xlnet": (lambda: build("XLNetLMHeadModel", vocab_size=VOCAB, d_model=16, n_layer=1, n_head=2, d_inner=16,
                           dropout=0.0), False),
    "bart, decoder": (lambda: build("BartForCausalLM", **BART), False),
    "marian, decoder": (lambda: build("MarianForCausalLM", **BART), False),
    "bart": (lambda: build("BartForConditionalGeneration", **BART), False),
    "mbart": (lambda: build("MBartForConditionalGeneration", **BART), False),
    "t5": (lambda: build("T5ForConditionalGeneration", vocab_size=VOCAB, d_model=16, d_kv=8, d_ff=32, num_layers=1,
                        num_heads=2, decoder_start_token_id=0, dropout_rate=0.0), False),
    "llama": (llama, True),
    "bert, causal": (lambda: build("BertLMHeadModel", **BERT, is_decoder=True), True),
}  # fmt: skip


@pytest.mark.parametrize(("make", "shift"), ALIGNED.values(), ids=ALIGNED.keys())
@pytest.mark.parametrize("emo", [LinearEMOLoss, EMOLoss])
def test_labels_are_shifted_as_the_model_does(make: Any, shift: bool, emo: Any, bank: Bank, arguments: Any):
    """Our cross-entropy is the model's own loss, also with decoder inputs that are made from labels."""
    model = make().train()
    labels = masked()
    own = model(input_ids=IDS, labels=labels).loss.item()
    trainer = EMOTrainer(model, arguments(), emo=emo(bank, **CE))
    assert trainer.compute_loss(model, {"input_ids": IDS, "labels": labels}).item() == pytest.approx(own, abs=1e-5)
    assert trainer._emo_probe.shift == shift
    assert trainer._loss_shifts_labels == shift


@pytest.mark.parametrize(("make", "shift"), ALIGNED.values(), ids=ALIGNED.keys())
def test_a_function_that_is_a_callback_knows_the_model(make: Any, shift: bool, bank: Bank, arguments: Any):
    model = make().train()
    inputs = {"input_ids": IDS, "labels": masked()}
    if model.config.is_encoder_decoder:
        inputs = {**with_decoder_inputs(model, {"input_ids": IDS}, masked()), "labels": masked()}
    own = model(**inputs).loss.item()
    function = compute_loss_func(EMOLoss(bank, **CE))
    trainer = tf.Trainer(model, arguments(), compute_loss_func=function, callbacks=[function])
    assert trainer.compute_loss(model, inputs).item() == pytest.approx(own, abs=1e-5)
    assert function.shifts == shift


@pytest.mark.parametrize("name", ["bart", "mbart", "t5"])
def test_a_function_refuses_a_decoder_that_would_be_fed_the_source(name: str, bank: Bank, arguments: Any, texts: Any):
    model, function = ALIGNED[name][0](), compute_loss_func(EMOLoss(bank))
    trainer = tf.Trainer(model, arguments(), train_dataset=texts, compute_loss_func=function, callbacks=[function])
    with pytest.raises(UsageError, match="the batch has no decoder_input_ids") as error:
        trainer.train()
    assert "DataCollatorForSeq2Seq" in error.value.hint
    if name != "t5":
        with pytest.raises(UsageError, match="the batch has no decoder_input_ids"):
            tf.Trainer(model, arguments(), eval_dataset=texts, compute_loss_func=function,
                       callbacks=[function]).evaluate()  # fmt: skip


@pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0])
@pytest.mark.parametrize("name", ["xlnet", "bart, decoder", "llama", "bert, causal", "bart"])
def test_the_shift_is_known_whatever_the_logits_are(name: str, scale: float, bank: Bank, arguments: Any):
    """With a head of zeros, shifted and unshifted labels give the same loss."""
    make, shift = ALIGNED[name]
    model = make().train()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(scale)
    trainer = EMOTrainer(model, arguments(), emo=bank)
    trainer.compute_loss(model, {"input_ids": IDS, "labels": masked()})
    assert trainer._emo_probe.shift == shift
    assert not trainer._emo_probe.needs_batch(linear=True)


def test_a_loss_of_another_kind_is_refused_where_logits_are_equal(bank: Bank, arguments: Any):
    """ProphetNet smooths labels, which is invisible while all logits are equal."""
    model = build("ProphetNetForCausalLM", vocab_size=VOCAB, hidden_size=16, num_decoder_layers=1, decoder_ffn_dim=16,
                 num_decoder_attention_heads=2, dropout=0.0, is_decoder=True, eps=0.3).train()  # fmt: skip
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    with pytest.raises(UsageError, match="own loss of the first batch"):
        EMOTrainer(model, arguments(), emo=bank).compute_loss(model, {"input_ids": IDS, "labels": IDS})


def test_the_shift_is_not_measured_of_models_that_do_not_say_enough():
    model = llama()
    assert measure_shift(model) is True
    model.get_input_embeddings = Mock(side_effect=NotImplementedError)
    assert measure_shift(model) is None
    assert measure_shift(torch.nn.Linear(2, 2)) is None


def test_tokens_are_counted_as_labels_are_shifted(bank: Bank, arguments: Any, texts: Any):
    texts.labels = texts.ids.masked_fill(texts.mask == 0, -100)
    trainer = EMOTrainer(build("BartForCausalLM", **BART), arguments(), train_dataset=texts, emo=bank)
    batch = {name: torch.stack([texts[i][name] for i in range(8)]) for name in texts[0]}
    assert trainer.get_batch_samples(iter([batch]), 1, torch.device("cpu"))[1] == (batch["labels"] != -100).sum()


def jetmoe() -> Any:
    return build("JetMoeForCausalLM", **{**SMALL, "num_key_value_heads": 1}, kv_channels=8, num_local_experts=4,
                num_experts_per_tok=2, output_router_logits=True, aux_loss_coef=0.3)  # fmt: skip


def dbrx() -> Any:
    return build("DbrxForCausalLM", d_model=16, n_heads=2, n_layers=1, max_seq_len=64, vocab_size=VOCAB,
                output_router_logits=True, attn_config={"kv_n_heads": 1, "clip_qkv": 8.0, "rope_theta": 1e4},
                ffn_config={"ffn_hidden_size": 16, "moe_num_experts": 2, "moe_top_k": 1, "moe_loss_weight": 0.2},
                )  # fmt: skip


def switch() -> Any:
    return build("SwitchTransformersForConditionalGeneration", vocab_size=VOCAB, d_model=16, d_kv=8, d_ff=16,
                num_layers=2, num_decoder_layers=2, num_sparse_encoder_layers=1, num_sparse_decoder_layers=1,
                num_heads=2, num_experts=2, expert_capacity=64, decoder_start_token_id=0, dropout_rate=0.0,
                router_jitter_noise=0.0, router_z_loss_coef=0.1, router_aux_loss_coef=0.2)  # fmt: skip


@pytest.mark.parametrize("make", [jetmoe, dbrx, switch])
@pytest.mark.parametrize("emo", [LinearEMOLoss, EMOLoss])
def test_auxiliary_losses_are_added_as_the_model_adds_them(make: Any, emo: Any, bank: Bank, arguments: Any):
    model = make().train()
    inputs = {"input_ids": IDS, "labels": masked(), "output_router_logits": True}
    own = model(**inputs)
    own.loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    trainer = EMOTrainer(model, arguments(), emo=emo(bank, **CE))
    loss = trainer.compute_loss(model, inputs)
    loss.backward()
    assert loss.item() == pytest.approx(own.loss.item(), abs=1e-5)
    for name, parameter in model.named_parameters():
        if name in expected:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=0, atol=1e-5)


def bamba() -> Any:
    return build("BambaForCausalLM", **SMALL, z_loss_coefficient=0.1, attn_layer_indices=[0], mamba_n_heads=2,
                mamba_d_head=16, mamba_d_state=8, mamba_expand=2, mamba_chunk_size=8)  # fmt: skip


def nllb() -> Any:
    config = {**BART, "output_router_logits": True, "router_aux_loss_coef": 0.5, "num_experts": 2,
              "encoder_sparse_step": 1, "decoder_sparse_step": 1, "expert_capacity": 64}  # fmt: skip
    return build("NllbMoeForConditionalGeneration", **config)


@pytest.mark.parametrize("emo", [LinearEMOLoss, EMOLoss])
def test_a_loss_that_is_more_is_refused_with_both_numbers(emo: Any, bank: Bank, arguments: Any):
    model = bamba().train()
    inputs = {"input_ids": IDS, "labels": masked()}
    own = model(**inputs).loss.item()
    with pytest.raises(UsageError, match=rf"own loss of the first batch is {own:.4f}.*cross-entropy .* is \d") as error:
        EMOTrainer(model, arguments(), emo=emo(bank)).compute_loss(model, inputs)
    assert "emo_check_loss=False" in error.value.hint
    EMOTrainer(model, arguments(), emo=emo(bank), emo_check_loss=False).compute_loss(model, inputs)


@pytest.mark.parametrize("emo", [LinearEMOLoss, EMOLoss])
def test_an_auxiliary_loss_that_comes_with_labels_alone_is_refused(emo: Any, bank: Bank, arguments: Any):
    model = nllb().train()
    inputs = {"input_ids": IDS, "labels": masked()}
    with pytest.raises(UsageError, match="computes its auxiliary loss only if it gets labels") as error:
        EMOTrainer(model, arguments(), emo=emo(bank)).compute_loss(model, inputs)
    assert "emo_check_loss=False" in error.value.hint
    EMOTrainer(model, arguments(), emo=emo(bank), emo_check_loss=False).compute_loss(model, inputs)


def test_the_check_changes_nothing(bank: Bank, arguments: Any, texts: Any):
    """Random states and buffers are restored, so dropout is the same as without the check."""

    def end(**more: Any) -> dict[str, torch.Tensor]:
        model = build("GPT2LMHeadModel", vocab_size=VOCAB, n_positions=64, n_embd=16, n_layer=1, n_head=2)
        model.register_buffer("calls", torch.zeros(1))

        def count(_module: Any, _inputs: Any, _output: Any) -> None:
            model.calls += 1

        model.register_forward_hook(count)
        trainer = EMOTrainer(model, arguments(), train_dataset=texts, emo=bank, **more)
        trainer.train()
        return trainer.model.state_dict()

    one, other = end(), end(emo_check_loss=False)
    assert one["calls"] == 3
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=0)


def test_large_batches_are_compared_by_a_part_of_a_row():
    batch, limits = LabeledBatch({"input_ids": IDS}, IDS), {"ignore_index": -100, "max_logits": 6 * VOCAB}
    model = llama()
    widths: list[Any] = []
    model.lm_head.register_forward_hook(lambda _m, _i, output: widths.append(output.shape[:2]))
    linear = (find_head(model), form_of(model))
    assert compare_own_loss(model, model, batch, linear, **limits).shift is True
    assert widths[-1] == (1, 6)
    model = bamba()
    with pytest.raises(UsageError, match="own loss of the first batch"):
        compare_own_loss(model, model, batch, None, **limits)


def bert2bert() -> Any:
    torch.manual_seed(1)
    encoder = tf.BertModel(tf.BertConfig(**BERT, initializer_range=0.3), add_pooling_layer=False)
    decoder = tf.BertLMHeadModel(
        tf.BertConfig(**BERT, initializer_range=0.3, is_decoder=True, add_cross_attention=True)
    )
    model = tf.EncoderDecoderModel(encoder=encoder, decoder=decoder)
    model.config.pad_token_id, model.config.decoder_start_token_id = 0, 0
    return model


def test_an_encoder_decoder_of_two_models_gets_the_mask_that_it_makes_itself(bank: Bank, tmp_path: Any):
    # The decoder's first token is padding, so the mask affects every label.
    args = tf.TrainingArguments(
        str(tmp_path), max_steps=1, logging_steps=1, report_to=[], use_cpu=True, disable_tqdm=True,
        dataloader_pin_memory=False, save_strategy="no",
    )  # fmt: skip
    data = [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row} for row in IDS]
    losses = {}
    for name, kind, more in (("plain", tf.Trainer, {}), ("mixin", EMOTrainer, {"emo": EMOLoss(bank, **CE)})):
        trainer = kind(bert2bert().eval(), args, train_dataset=data, **more)
        trainer.train()
        losses[name] = next(line["loss"] for line in trainer.state.log_history if "loss" in line)
    assert losses["mixin"] == pytest.approx(losses["plain"], rel=1e-4)


def test_a_model_that_makes_other_inputs_of_its_decoder_is_refused(bank: Bank, tmp_path: Any):
    class Masking(tf.BartForConditionalGeneration):
        def forward(self, *arguments: Any, labels: Any = None, **named: Any) -> Any:
            if labels is not None and named.get("decoder_input_ids") is None:
                named["decoder_input_ids"] = self.prepare_decoder_input_ids_from_labels(labels).flip(1)
            return super().forward(*arguments, labels=labels, **named)

    torch.manual_seed(1)
    model = Masking(tf.BartConfig(**BART, init_std=0.3))
    args = tf.TrainingArguments(str(tmp_path), max_steps=1, report_to=[], use_cpu=True, disable_tqdm=True,
                                dataloader_pin_memory=False, save_strategy="no",
                                remove_unused_columns=False)  # fmt: skip
    data = [{"input_ids": row, "labels": row} for row in IDS]
    for loss in (LinearEMOLoss(bank), EMOLoss(bank)):
        with pytest.raises(UsageError, match="makes other decoder inputs"):
            EMOTrainer(model, args, train_dataset=data, emo=loss).train()
    EMOTrainer(model, args, train_dataset=data, emo=bank, emo_check_loss=False).train()
