"""A dataset column `token_weights`: it reaches the loss, aligned and counted, or is refused by name."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    DataCollatorWithFlattening,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
)
from trl import SFTConfig, SFTTrainer

from costbank.bank import Bank
from costbank.errors import UsageError
from costbank.loss import EMOLoss, LinearEMOLoss
from costbank.trainers.huggingface import EMOTrainerMixin, compute_loss_func
from costbank.trainers.weights import WeightsCollator
from tests.trainers.conftest import TEXTS, gpt2, llama
from tests.trainers.test_huggingface import assert_same, losses, trained

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
FORMS = [LinearEMOLoss, EMOLoss]


class EMOTrainer(EMOTrainerMixin, Trainer):
    pass


class EMOSFTTrainer(EMOTrainerMixin, SFTTrainer):
    pass


@pytest.fixture
def rows(tokenizer: Any) -> list[dict[str, Any]]:
    """Tokens of texts of several lengths; many weights are small, so that their sum in a batch may be below 1."""
    random = np.random.default_rng(3)
    made = []
    for number, text in enumerate(TEXTS):
        ids = tokenizer(text + "<end>" * (number % 4))["input_ids"]
        weights = (random.random(len(ids)) ** 4 * 0.05).astype(np.float32)
        weights[number % 3] = 0.0
        made.append({"input_ids": ids, "labels": [-100, *ids[1:]], "token_weights": weights.tolist()})
    return made


def collator(tokenizer: Any, side: str = "right") -> DataCollatorForSeq2Seq:
    # The tokenizer of the session keeps its own side.
    tokenizer = tokenizer.__class__(tokenizer_object=tokenizer.backend_tokenizer, pad_token="<pad>", eos_token="<end>",
                                    padding_side=side)  # fmt: skip
    return DataCollatorForSeq2Seq(tokenizer)


def oracle(model: Any, batch: list[dict[str, Any]], bank: Bank, weight: float) -> float:
    """Σ w (CE + weight · K) / Σ w of next labels, a row at a time without padding, in float64."""
    rows = bank.vectors().astype(np.float64)
    kappa = np.maximum(1.0 - rows @ rows.T, 0.0)
    np.fill_diagonal(kappa, 0.0)
    model = model.double().eval()
    total = count = 0.0
    for row in batch:
        with torch.no_grad():
            p = torch.softmax(model(torch.tensor([row["input_ids"]])).logits[0], -1).numpy()
        for place in range(len(row["labels"]) - 1):
            label, w = row["labels"][place + 1], row["token_weights"][place + 1]
            if label != -100:
                total += w * (-np.log(p[place, label]) + weight * (p[place] * kappa[label]).sum())
                count += w
    return total / count


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("emo", FORMS)
def test_the_loss_is_the_weighted_sum_over_the_sum_of_weights(
    emo: Any, side: str, rows: Any, bank: Bank, tokenizer: Any, arguments: Any
):
    trainer = EMOTrainer(llama(), arguments(max_steps=1), train_dataset=Dataset.from_list(rows[:8]),
                         data_collator=collator(tokenizer, side),
                         emo=emo(bank, mixing="fixed", weight=0.7))  # fmt: skip
    assert sum(sum(row["token_weights"]) for row in rows[:8]) < 1
    trainer.train()
    assert losses(trainer)[0] == pytest.approx(oracle(llama(), rows[:8], bank, 0.7), abs=2e-5)


@pytest.mark.parametrize("emo", FORMS)
@pytest.mark.parametrize("make", [gpt2, llama])
def test_four_weighted_batches_of_two_are_one_of_eight(
    make: Any, emo: Any, rows: Any, bank: Bank, tokenizer: Any, arguments: Any
):
    def run(size: int, accumulated: int) -> Trainer:
        args = arguments(per_device_train_batch_size=size, gradient_accumulation_steps=accumulated)
        return EMOTrainer(make(), args, train_dataset=Dataset.from_list(rows), data_collator=collator(tokenizer),
                          emo=emo(bank))  # fmt: skip

    one, four = run(8, 1), run(2, 4)
    assert_same(trained(one), trained(four))
    assert losses(one) == pytest.approx(losses(four), abs=1e-5)


@pytest.mark.parametrize("emo", FORMS)
def test_equal_weights_change_nothing_but_for_their_size(
    emo: Any, rows: Any, bank: Bank, tokenizer: Any, arguments: Any
):
    def run(weight: float | None) -> dict[str, torch.Tensor]:
        data = [{**row, "token_weights": [weight] * len(row["labels"])} for row in rows]
        dataset = Dataset.from_list(data)
        if weight is None:
            dataset = dataset.remove_columns("token_weights")
        return trained(EMOTrainer(llama(), arguments(), train_dataset=dataset, data_collator=collator(tokenizer),
                                  emo=emo(bank)))  # fmt: skip

    plain = run(None)
    assert_same(run(1.0), plain)
    assert_same(run(1e-3), plain)


def test_tokens_of_weight_zero_are_not_trained(rows: Any, bank: Bank, tokenizer: Any, arguments: Any):
    masked = [
        {**row, "labels": [label if place % 2 else -100 for place, label in enumerate(row["labels"])]} for row in rows
    ]
    zeroed = [{**row, "token_weights": [float(place % 2) for place in range(len(row["labels"]))]} for row in rows]
    for row in masked:
        row.pop("token_weights")
    one, other = (EMOTrainer(llama(), arguments(), train_dataset=Dataset.from_list(data),
                             data_collator=collator(tokenizer), emo=bank) for data in (masked, zeroed))  # fmt: skip
    assert_same(trained(one), trained(other))
    lines = [[line["ce"] for line in trainer.state.log_history if "loss" in line] for trainer in (one, other)]
    assert lines[0] == pytest.approx(lines[1], abs=1e-5)


@pytest.mark.parametrize("emo", FORMS)
def test_evaluations_count_all_tokens_alike(emo: Any, rows: Any, bank: Bank, tokenizer: Any, arguments: Any):
    weighted = Dataset.from_list(rows)
    results = [
        EMOTrainer(llama(), arguments(), eval_dataset=data, data_collator=collator(tokenizer), emo=emo(bank)).evaluate()
        for data in (weighted, weighted.remove_columns("token_weights"))
    ]
    for name in ("eval_loss", "eval_emo_loss", "eval_ce"):
        assert results[0][name] == pytest.approx(results[1][name], abs=1e-7)


@pytest.mark.parametrize("column", ["labels", "input_ids"])
def test_collators_of_all_kinds_are_followed(column: str, tokenizer: Any):
    features = [{"input_ids": [5, 6, 7], "token_weights": [1.0, 2.0, 3.0]},
                {"input_ids": [5, 8, 9, 5, 7], "token_weights": [4.0, 5.0, 6.0, 7.0, 8.0]}]  # fmt: skip
    if column == "labels":
        features = [{**row, "labels": [-100, *row["input_ids"][1:]]} for row in features]
    right = torch.tensor([[1.0, 2, 3, 0, 0], [4, 5, 6, 7, 8]])
    left = torch.tensor([[0, 0, 1.0, 2, 3], [4, 5, 6, 7, 8]])
    if column == "labels":
        assert torch.equal(WeightsCollator(collator(tokenizer))(features)["token_weights"], right)
        assert torch.equal(WeightsCollator(collator(tokenizer, "left"))(features)["token_weights"], left)
    else:
        causal = DataCollatorForLanguageModeling(tokenizer, mlm=False)
        assert torch.equal(WeightsCollator(causal)(features)["token_weights"], right)
    flat = WeightsCollator(DataCollatorWithFlattening(return_tensors="pt"))(features)
    assert flat["token_weights"].tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert flat["labels"].shape == flat["token_weights"].shape


def test_what_cannot_be_aligned_is_refused_by_name(tokenizer: Any):
    padded = WeightsCollator(collator(tokenizer))
    row = {"input_ids": [5, 6, 7], "labels": [5, 6, 7]}
    with pytest.raises(UsageError, match="a row has 2 token_weights and 3 tokens"):
        padded([{**row, "token_weights": [1.0, 2.0]}])
    with pytest.raises(UsageError, match="1 of 2 rows of a batch have no token_weights"):
        padded([{**row, "token_weights": [1.0, 2.0, 3.0]}, row])
    with pytest.raises(UsageError, match=r"token_weights of a row have shape \[3, 1\]"):
        padded([{**row, "token_weights": [[1.0], [2.0], [3.0]]}])

    def shuffling(features: Any) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.tensor([[9, 9, 9, 9]]), "labels": torch.tensor([[9, 9, 9, 9]])}

    with pytest.raises(UsageError, match="function makes other rows than it is given"):
        WeightsCollator(shuffling)([{**row, "token_weights": [1.0, 2.0, 3.0]}])
    # A collator may make them itself, of a column of another name.
    own = WeightsCollator(lambda _features: {"token_weights": torch.ones(1, 3)})([{**row, "importance": [1, 1, 1]}])
    assert own["token_weights"].shape == (1, 3)
    # Attributes of the collator are still there.
    assert padded.tokenizer.padding_side == "right"


def test_an_encoder_decoders_weights_are_those_of_its_labels(rows: Any, bank: Bank, tokenizer: Any, arguments: Any):
    torch.manual_seed(1)
    model = T5ForConditionalGeneration(T5Config(
        vocab_size=300, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.0,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    ))  # fmt: skip
    data = [{**row, "input_ids": row["input_ids"][:4], "labels": row["input_ids"]} for row in rows[:8]]
    expected = total = 0.0
    with torch.no_grad():
        for row in data:
            out = model.eval()(input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["labels"]]))
            ce = torch.nn.functional.cross_entropy(out.logits[0], torch.tensor(row["labels"]), reduction="none")
            expected += float((ce * torch.tensor(row["token_weights"])).sum())
            total += sum(row["token_weights"])
    trainer = EMOTrainer(model.train(), arguments(max_steps=1), train_dataset=Dataset.from_list(data),
                         data_collator=collator(tokenizer),
                         emo=LinearEMOLoss(bank, mixing="fixed", weight=0.0))  # fmt: skip
    trainer.train()
    assert losses(trainer)[0] == pytest.approx(expected / total, abs=1e-4)


def sft(kind: Any, rows: Any, arguments: Any, tokenizer: Any, config: dict[str, Any], **more: Any) -> SFTTrainer:
    args = arguments(SFTConfig, **{"max_length": None, "activation_checkpointing": False, "max_steps": 1, **config})
    return kind(llama(), args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, **more)


@pytest.mark.parametrize(
    "config",
    [{}, {"padding_free": True}, {"max_length": 6}, {"max_length": 6, "truncation_mode": "keep_end"}],
    ids=["padded", "padding-free", "keep_start", "keep_end"],
)
def test_sft_trainer_hands_them_on(config: dict[str, Any], rows: Any, bank: Bank, tokenizer: Any, arguments: Any):
    trainer = sft(
        EMOSFTTrainer, rows[:8], arguments, tokenizer, config, emo=LinearEMOLoss(bank, mixing="fixed", weight=0.7)
    )
    trainer.train()
    kept = {"keep_start": slice(None, 6), "keep_end": slice(-6, None)}[config.get("truncation_mode", "keep_start")]
    cut = kept if "max_length" in config else slice(None)
    expected = [{name: values[cut] for name, values in row.items()} for row in rows[:8]]
    if not config.get("padding_free"):
        assert losses(trainer)[0] == pytest.approx(oracle(llama(), expected, bank, 0.7), abs=2e-5)
        return
    # In one row without a mask tokens see those of other texts, so only what goes into the loss is compared.
    batch = next(iter(trainer.get_train_dataloader()))
    weights = {tuple(row["input_ids"]): row["token_weights"] for row in rows[:8]}
    starts = [*(batch["position_ids"][0] == 0).nonzero()[:, 0].tolist(), batch["input_ids"].shape[1]]
    for start, end in pairwise(starts):
        own = weights[tuple(batch["input_ids"][0, start:end].tolist())]
        assert batch["token_weights"][0, start:end].tolist() == pytest.approx(own)


def test_what_sft_trainer_drops_is_refused(rows: Any, bank: Bank, tokenizer: Any, arguments: Any):
    with pytest.raises(UsageError, match="drops the column token_weights of the dataset train") as caught:
        sft(EMOSFTTrainer, rows, arguments, tokenizer, {"packing": True, "max_length": 32}, emo=bank)
    assert "packing=False" in caught.value.hint
    texts = [{"text": text, "token_weights": [1.0, 2.0]} for text in TEXTS]
    with pytest.raises(UsageError, match=r"a row has 2 token_weights and \d+ tokens"):
        sft(EMOSFTTrainer, texts, arguments, tokenizer, {}, emo=bank).train()


def test_the_function_refuses_what_it_cannot_see(rows: Any, bank: Bank, tokenizer: Any, arguments: Any):
    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, i: int) -> dict[str, Any]:
            return rows[i]

    for data, settings in ((Rows(), {}), (Dataset.from_list(rows), {"remove_unused_columns": False})):
        function = compute_loss_func(EMOLoss(bank))
        trainer = Trainer(llama(), arguments(**settings), train_dataset=data, data_collator=collator(tokenizer),
                          compute_loss_func=function, callbacks=[function])  # fmt: skip
        with pytest.raises(UsageError, match="the dataset has token_weights") as caught:
            trainer.train()
        assert "EMOTrainerMixin" in caught.value.hint
