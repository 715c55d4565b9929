"""Tokens that were added to a tokenizer and a model, and heads whose width differs from the bank's or the logits'."""

import copy
import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Trainer

from costbank.bank import Bank
from costbank.errors import ShapeError, TokenizerError
from costbank.loss import DenseCosts, EMOLoss, EMOOptions, LinearEMOLoss, emo_loss, open_costs, open_smoothing
from costbank.trainers.huggingface import EMOTrainerMixin, compute_loss_func
from costbank.trainers.tokenizer import check_tokenizer
from tests.trainers.conftest import SMALL, VOCAB, Texts, llama
from tests.trainers.test_huggingface import assert_same, losses, trained

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*added tokens that .* has no vectors for.*:UserWarning"),
]
FORMS = [LinearEMOLoss, EMOLoss]


class EMOTrainer(EMOTrainerMixin, Trainer):
    pass


class Unpadded(LlamaForCausalLM):
    """A model with a padded head that cuts the padding off its logits."""

    def forward(self, input_ids: Any = None, attention_mask: Any = None, labels: Any = None, **kwargs: Any) -> Any:
        outputs = super().forward(input_ids, attention_mask, **kwargs)
        outputs.logits = outputs.logits[..., :VOCAB]
        if labels is not None:
            outputs.loss = self.loss_function(logits=outputs.logits, labels=labels, vocab_size=VOCAB)
        return outputs


def unpadded() -> LlamaForCausalLM:
    torch.manual_seed(1)
    return Unpadded(LlamaConfig(**{**SMALL, "vocab_size": 400}, tie_word_embeddings=False))


@pytest.fixture
def chat(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    added = copy.deepcopy(tokenizer)
    added.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|bot|>"]})
    return added


def resized(width: int) -> LlamaForCausalLM:
    model = llama()
    torch.manual_seed(2)
    model.resize_token_embeddings(width, mean_resizing=False)
    return model


def chats(chat: PreTrainedTokenizerFast) -> Texts:
    texts = Texts(chat)
    texts.ids[:, 0], texts.ids[:, 3] = VOCAB, VOCAB + 1
    texts.labels[:, 3] = VOCAB + 1
    return texts


@pytest.mark.parametrize("emo", FORMS)
def test_added_tokens_train_with_costs_of_one_and_are_logged_once(
    emo: Any, chat: Any, bank: Bank, arguments: Any, caplog: Any
):
    texts = chats(chat)
    with caplog.at_level(logging.WARNING, "costbank.loss"):
        trainer = EMOTrainer(resized(len(chat)), arguments(), train_dataset=texts, eval_dataset=texts,
                             processing_class=chat, emo=emo(bank, preset="published"), emo_bank=bank)  # fmt: skip
        model = trained(trainer)
    messages = [record.message for record in caplog.records if "cost 1 to every token" in record.message]
    assert len(messages) == 1
    assert "302 wide" in messages[0]
    resized_first = EMOTrainer(resized(len(chat)), arguments(), train_dataset=texts,
                       emo=emo(open_costs(bank, "dense", vocab_size=302)))  # fmt: skip
    assert_same(model, trained(resized_first), 0.0)
    assert losses(trainer) == losses(resized_first)
    costs = trainer.emo.costs.rows(torch.tensor([VOCAB, VOCAB + 1, 7]))
    assert (costs[0, :VOCAB] == 1).all()
    assert costs[0, VOCAB] == 0
    assert costs[0, VOCAB + 1] == 1
    assert (costs[2, VOCAB:] == 1).all()


def test_the_function_takes_added_tokens_too(chat: Any, bank: Bank, arguments: Any):
    texts, function = chats(chat), compute_loss_func(EMOLoss(bank))
    by_function = Trainer(resized(302), arguments(), train_dataset=texts, compute_loss_func=function,
                          callbacks=[function])  # fmt: skip
    mixed = EMOTrainer(resized(302), arguments(), train_dataset=texts, emo=EMOLoss(bank))
    assert_same(trained(by_function), trained(mixed), 1e-6)


def test_a_checkpoint_goes_on_after_tokens_were_added(bank: Bank):
    before, after = EMOLoss(bank), EMOLoss(bank)
    after(torch.randn(2, 302), torch.tensor([1, 301]))
    assert after.pin == before.pin
    after.load_state_dict(before.state_dict())


def test_modules_are_fitted_to_their_first_logits(bank: Bank, caplog: Any):
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 310, dtype=torch.float64), torch.tensor([3, 301, 309, -100, 7])
    rows = np.zeros((310, bank.dim))
    rows[:VOCAB] = bank.vectors()
    kappa = np.maximum(1.0 - rows @ rows.T, 0.0)
    np.fill_diagonal(kappa, 0.0)
    p = torch.softmax(logits, 1).numpy()
    kept = [0, 1, 2, 4]
    expected = np.mean([(p[i] * kappa[labels[i]]).sum() - np.log(p[i, labels[i]]) for i in kept])
    loss = EMOLoss(bank, objective="emo", mixing="fixed", weight=1.0)
    with caplog.at_level(logging.WARNING, "costbank.loss"):
        assert loss(logits, labels).item() == pytest.approx(expected, abs=1e-6)
        assert loss(logits, labels).item() == pytest.approx(expected, abs=1e-6)
    assert len(caplog.records) == 1
    linear = LinearEMOLoss(bank, objective="emo", mixing="fixed", weight=1.0)
    assert linear(logits, torch.eye(310).double(), labels).item() == pytest.approx(expected, abs=1e-6)
    # A model without the added tokens again: these had no vector, so nothing is lost.
    assert loss(torch.randn(2, VOCAB), torch.tensor([1, 2])).isfinite()


def test_objectives_without_costs_take_any_width(bank: Bank):
    for loss in (EMOLoss(bank, objective="ce"), EMOLoss(bank, objective="delta", mixing="fixed", weight=1.0)):
        assert loss(torch.randn(2, 999), torch.tensor([1, 998])).isfinite()


@pytest.mark.parametrize("width", [376, 299, 150])
@pytest.mark.parametrize("emo", FORMS)
def test_the_hint_about_another_width_works(width: int, emo: Any, bank: Bank):
    logits, labels = torch.randn(2, width), torch.tensor([1, 2])
    arguments = (logits, labels) if emo is EMOLoss else (logits, torch.eye(width), labels)
    with pytest.raises(ShapeError, match=f"logits are {width} wide, and tiny@.* has 300 tokens") as caught:
        emo(bank)(*arguments)
    call = caught.value.hint.split("give ")[-1].removesuffix(" instead of the bank")
    result = eval(call, {"bank": bank, "open_smoothing": open_smoothing, emo.__name__: emo})
    assert result(*arguments).isfinite()


@pytest.mark.parametrize("width", [376, 302, 299, 20])
@pytest.mark.parametrize("form", ["dense", "low-rank", "neighbors", "rows"])
def test_the_hint_about_costs_of_another_width_works(width: int, form: str, bank: Bank):
    settings = {"low-rank": {"rank": 5}, "neighbors": {"k": 3}}.get(form, {})
    rows = torch.tensor(bank.vectors())
    costs = DenseCosts(rows) if form == "rows" else open_costs(bank, form, **settings)
    logits, labels = torch.randn(2, width), torch.tensor([1, 2])
    with pytest.raises(ShapeError, match=f"logits are {width} wide, but the costs of .* are for 300 tokens") as caught:
        emo_loss(logits, labels, costs)
    call = caught.value.hint.split(", use ")[1].split("; otherwise")[0]
    names = {"bank": bank, "rows": rows, "torch": torch, "DenseCosts": DenseCosts, "open_costs": open_costs}
    result = eval(call, names)
    assert result.pin.split()[1:] == costs.pin.split()[1:]
    assert emo_loss(logits, labels, result).isfinite()


def test_rows_without_a_vector_may_be_cut_off(bank: Bank):
    padded = EMOLoss(bank)
    padded.fit(320)
    assert (padded.costs.vectors[VOCAB:] == 0).all()
    padded.fit(305)
    assert padded.costs.vocab_size == 305
    with pytest.raises(ShapeError, match="1 of the ids without logits have vectors"):
        padded.fit(299)


def test_a_narrower_head_is_refused_before_any_batch(bank: Bank, arguments: Any, texts: Any):
    with pytest.raises(ShapeError, match=r"200 wide, and tiny@.* has 300 tokens: 42 of the ids without logits"):
        EMOTrainer(resized(200), arguments(), train_dataset=texts, emo=bank)
    with pytest.raises(ShapeError, match=r"200 wide, but the costs of tiny@.* are for 300 tokens"):
        EMOTrainer(resized(200), arguments(), train_dataset=texts, emo=LinearEMOLoss(open_costs(bank, "dense")))


@pytest.mark.parametrize("emo", FORMS)
def test_a_much_wider_head_is_refused_and_taken_by_insisting(emo: Any, bank: Bank, arguments: Any, texts: Any):
    with pytest.raises(ShapeError, match=r"400 wide.*more than 25% wider") as caught:
        EMOTrainer(resized(400), arguments(), train_dataset=texts, emo=emo(bank)).train()
    assert f"{emo.__name__}(open_smoothing(bank, vocab_size=400))" in caught.value.hint
    wide = emo(open_smoothing(bank, vocab_size=400))
    insisting = EMOTrainer(resized(400), arguments(), train_dataset=texts, emo=wide, emo_bank=bank)
    insisting.train()


@pytest.mark.parametrize("emo", FORMS)
def test_the_width_of_the_logits_counts_and_not_that_of_the_head(emo: Any, bank: Bank, arguments: Any, texts: Any):
    whole = EMOTrainer(unpadded(), arguments(), train_dataset=texts, eval_dataset=texts, emo=emo(bank))
    before = copy.deepcopy(dict(whole.model.named_parameters()))
    after = trained(whole)
    assert whole.emo.costs.vocab_size == VOCAB
    assert not torch.equal(before["lm_head.weight"][:VOCAB], after["lm_head.weight"][:VOCAB])
    assert torch.equal(before["lm_head.weight"][VOCAB:], after["lm_head.weight"][VOCAB:])
    with pytest.raises(ShapeError, match=r"300 wide, but the costs of .* 400 tokens") as caught:
        EMOTrainer(
            unpadded(), arguments(), train_dataset=texts, emo=emo(open_costs(bank, "dense", vocab_size=400))
        ).train()
    assert "open_costs(bank, 'dense', vocab_size=300)" in caught.value.hint
    EMOTrainer(unpadded(), arguments(), train_dataset=texts, emo=emo(open_costs(bank, "dense", vocab_size=300))).train()


def test_the_tokenizer_may_have_added_tokens(chat: Any, tokenizer: Any, bank: Bank):
    with pytest.warns(UserWarning, match=r"2 added tokens that tiny@.* has no vectors for: 300 \(<\|user\|>\), 301"):
        check_tokenizer(bank, chat)
    changed = copy.deepcopy(tokenizer)
    text = changed.backend_tokenizer.to_str().replace('"<end>"', '"<stop>"')
    other = PreTrainedTokenizerFast(tokenizer_object=type(changed.backend_tokenizer).from_str(text))
    other.add_tokens(["<|user|>"])
    with (
        pytest.warns(UserWarning, match="1 added tokens"),
        pytest.raises(TokenizerError, match=r"1 of 301 ids differ.*1 is b'<stop>', in the bank b'<end>'"),
    ):
        check_tokenizer(other_bank := bank, other)
    assert other_bank is bank


def test_added_tokens_may_take_the_padding_of_a_bank(chat: Any, bank: Bank):
    class Padded:
        """The bank, as if it were built from a head with 20 rows of padding."""

        name, id = bank.name, bank.id
        vocab = bank.vocab.padded(320)
        rows = np.vstack([bank.vectors(), np.zeros((20, bank.dim), np.float32)])

        def vectors(self, ids: slice) -> np.ndarray:
            return self.rows[ids]

    with pytest.warns(UserWarning, match=r"2 added tokens.*300 \(<\|user\|>\)"):
        check_tokenizer(Padded(), chat)
    Padded.rows = np.ones((320, bank.dim))
    with pytest.raises(TokenizerError, match=r"2 of 320 ids differ.*300 is b'<\|user\|>', in the bank b''"):
        check_tokenizer(Padded(), chat)


def test_lightning_modules_are_fitted_as_well(bank: Bank):
    lightning = pytest.importorskip("lightning")
    from costbank.trainers.lightning import EMOLightningMixin

    class Model(EMOLightningMixin, lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.loss, self.logged = EMOLoss(bank, preset="published"), {}

        def log_dict(self, values: Any, **_rest: Any) -> None:
            self.logged.update(values)

        def log(self, name: str, value: Any, **_rest: Any) -> None:
            self.logged[name] = value

    model = Model()
    model._trainer = SimpleNamespace(global_step=0)
    logits, labels = torch.randn(4, 303), torch.tensor([1, 300, 302, 7])
    loss = model.emo_step(model.loss, logits, labels)
    expected = emo_loss(logits, labels, open_costs(bank, "dense", vocab_size=303), EMOOptions())
    torch.testing.assert_close(loss, expected)
    assert model.logged["loss"] == pytest.approx(expected.item())
