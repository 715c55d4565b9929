"""A dataset column `token_weights`: it reaches the loss, aligned with the tokens, or an error refuses it by name."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, IterableDataset
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
from costbank.errors import ShapeError, UsageError
from costbank.loss import EMOLoss, LinearEMOLoss
from costbank.trainers.huggingface import EMOTrainerMixin, compute_loss_func
from costbank.trainers.token_weights import WeightsCollator
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
    """Tokens of texts of several lengths; many weights are small, so their sum in a batch can be below 1."""
    random = np.random.default_rng(3)
    weighted = []
    for number, text in enumerate(TEXTS):
        ids = tokenizer(text + "<end>" * (number % 4))["input_ids"]
        weights = (random.random(len(ids)) ** 4 * 0.05).astype(np.float32)
        weights[number % 3] = 0.0
        weighted.append({"input_ids": ids, "labels": [-100, *ids[1:]], "token_weights": weights.tolist()})
    return weighted


def collator(tokenizer: Any, side: str = "right") -> DataCollatorForSeq2Seq:
    # A copy, so that the session's tokenizer keeps its padding side.
    tokenizer = tokenizer.__class__(tokenizer_object=tokenizer.backend_tokenizer, pad_token="<pad>", eos_token="<end>",
                                    padding_side=side)  # fmt: skip
    return DataCollatorForSeq2Seq(tokenizer)


def oracle(model: Any, batch: list[dict[str, Any]], bank: Bank, weight: float) -> float:
    """Σ w (CE + weight · K) / Σ w over next labels, row by row without padding, in float64."""
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
                         emo=emo(bank, objective="emo", mixing="fixed", weight=0.7))  # fmt: skip
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


def test_weights_that_cannot_be_aligned_are_refused(tokenizer: Any):
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

    with pytest.raises(UsageError, match="function returns other rows than it gets"):
        WeightsCollator(shuffling)([{**row, "token_weights": [1.0, 2.0, 3.0]}])
    # A collator can make the weights itself, from a column with another name.
    own = WeightsCollator(lambda _features: {"token_weights": torch.ones(1, 3)})([{**row, "importance": [1, 1, 1]}])
    assert own["token_weights"].shape == (1, 3)
    # The collator's attributes are still accessible.
    assert padded.tokenizer.padding_side == "right"


EQUAL = [
    {"input_ids": [5, 6, 7, 8], "labels": [-100, -100, -100, 8], "token_weights": [1.0, 2.0, 3.0, 4.0]},
    {"input_ids": [9, 10, 11, 12], "labels": [-100, -100, -100, 12], "token_weights": [5.0, 6.0, 7.0, 8.0]},
    {"input_ids": [9, 10, 11, 5], "labels": [-100, -100, -100, 5], "token_weights": [0.0, 1.0, 0.0, 1.0]},
]


def stacked(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([row[name] for row in features]) for name in ("input_ids", "labels")}


def joined(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    names = ("input_ids", "labels")
    return {name: torch.tensor([[token for row in features for token in row[name]]]) for name in names}


@pytest.mark.parametrize("collate", [stacked, joined])
@pytest.mark.parametrize("order", [[1, 0, 2], [0, 2, 1], [2, 1, 0], [1, 2, 0]], ids=str)
def test_rows_in_another_order_are_refused(order: list[int], collate: Any):
    def reordering(features: Any) -> dict[str, torch.Tensor]:
        return collate([features[i] for i in order])

    with pytest.raises(UsageError, match="function returns other rows than it gets, or in another order"):
        WeightsCollator(reordering)(EQUAL)
    kept = WeightsCollator(collate)(EQUAL)["token_weights"]
    assert kept.flatten().tolist() == [weight for row in EQUAL for weight in row["token_weights"]]


def test_rows_of_several_lengths_that_are_joined_in_another_order_are_refused():
    features = [{**EQUAL[0]}, {name: values[:3] for name, values in EQUAL[1].items()}]
    with pytest.raises(UsageError, match="in another order"):
        WeightsCollator(lambda rows: joined(rows[::-1]))(features)
    assert WeightsCollator(joined)(features)["token_weights"].tolist() == [[1, 2, 3, 4, 5, 6, 7]]


@pytest.mark.parametrize("share", [0.15, 0.9, 1.0])
def test_rows_whose_tokens_are_masked_are_followed(share: float, tokenizer: Any):
    masking = tokenizer.__class__(tokenizer_object=tokenizer.backend_tokenizer, pad_token="<pad>", mask_token="<end>")
    collate = WeightsCollator(DataCollatorForLanguageModeling(masking, mlm_probability=share, seed=3))
    rows = [{"input_ids": [5 + i, 6, 7 + i, 8, 20, 30 + i][: 6 - i % 2], "token_weights": [float(i)] * (6 - i % 2)}
            for i in range(8)]  # fmt: skip
    for size in (8, 6, 1):
        got = collate(rows[:size])["token_weights"]
        for row, expected in zip(got, rows[:size], strict=True):
            assert row.tolist()[: len(expected["token_weights"])] == expected["token_weights"]


def test_rows_that_are_alike_in_all_but_their_weights_keep_their_order():
    twins = [{**EQUAL[0], "token_weights": [float(i)] * 4} for i in range(3)]
    assert WeightsCollator(stacked)(twins)["token_weights"][:, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("wrong", [-1.0, -1e-9, float("nan"), float("-inf")])
def test_negative_weights_are_refused(wrong: float, rows: Any, bank: Bank, tokenizer: Any, arguments: Any):
    bad = [{**row, "token_weights": [*row["token_weights"][:-1], wrong]} for row in rows]
    with pytest.raises(UsageError, match="token_weights of a row contain") as caught:
        EMOTrainer(llama(), arguments(), train_dataset=Dataset.from_list(bad), data_collator=collator(tokenizer),
                   emo=bank).train()  # fmt: skip
    assert "0 or more" in caught.value.hint


def unweighted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in ("input_ids", "labels")} for row in rows]


def making(tokenizer: Any, make: Any) -> Any:
    """A collator that makes the weights itself."""
    inner = collator(tokenizer)

    def collate(features: Any) -> Any:
        batch = inner(features)
        return {**batch, "token_weights": make(batch["labels"])}

    return collate


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: torch.ones(2, 3), r"token_weights of a batch have shape \[2, 3\], and its labels \[8, \d+\]"),
        (lambda labels: torch.ones(len(labels)), r"have shape \[8\], and its labels \[8, \d+\]"),
        (lambda labels: torch.ones(labels.shape)[..., 1:], r"have shape \[8, \d+\], and its labels"),
        (lambda labels: torch.ones(labels.shape)[..., None], r"have shape \[8, \d+, 1\], and its labels"),
        (lambda labels: torch.ones(labels.shape).tolist(), "token_weights of a batch are of type list"),
        (lambda labels: torch.full(labels.shape, -2.0), "token_weights of a batch contain -2.0"),
        (lambda labels: torch.full(labels.shape, torch.nan), "token_weights of a batch contain nan"),
    ],
    ids=["another", "a row", "shifted", "a column", "a list", "negative", "nan"],
)
def test_weights_that_a_collator_makes_are_checked(
    make: Any, message: str, rows: Any, bank: Bank, tokenizer: Any, arguments: Any
):
    trainer = EMOTrainer(llama(), arguments(remove_unused_columns=False), train_dataset=unweighted(rows),
                         data_collator=making(tokenizer, make), emo=bank)  # fmt: skip
    with pytest.raises((UsageError, ShapeError), match=message):
        trainer.train()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.long, torch.bool])
def test_weights_that_a_collator_makes_reach_the_loss(
    dtype: torch.dtype, rows: Any, bank: Bank, tokenizer: Any, arguments: Any
):
    def run(make: Any) -> list[float]:
        trainer = EMOTrainer(llama(), arguments(remove_unused_columns=False), train_dataset=unweighted(rows),
                             data_collator=making(tokenizer, make), emo=bank)  # fmt: skip
        trainer.train()
        return losses(trainer)

    ones = run(lambda labels: torch.ones(labels.shape))
    assert run(lambda labels: (torch.arange(labels.shape[1]) % 3 > 0).expand(labels.shape).to(dtype)) != ones
    assert run(lambda labels: torch.ones(labels.shape, dtype=dtype)) == pytest.approx(ones, abs=1e-6)


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
        EMOSFTTrainer,
        rows[:8],
        arguments,
        tokenizer,
        config,
        emo=LinearEMOLoss(bank, objective="emo", mixing="fixed", weight=0.7),
    )
    trainer.train()
    kept = {"keep_start": slice(None, 6), "keep_end": slice(-6, None)}[config.get("truncation_mode", "keep_start")]
    cut = kept if "max_length" in config else slice(None)
    expected = [{name: values[cut] for name, values in row.items()} for row in rows[:8]]
    if not config.get("padding_free"):
        assert losses(trainer)[0] == pytest.approx(oracle(llama(), expected, bank, 0.7), abs=2e-5)
        return
    # Without a mask, tokens in a packed row attend to other texts, so only the loss's inputs are compared.
    batch = next(iter(trainer.get_train_dataloader()))
    weights = {tuple(row["input_ids"]): row["token_weights"] for row in rows[:8]}
    starts = [*(batch["position_ids"][0] == 0).nonzero()[:, 0].tolist(), batch["input_ids"].shape[1]]
    for start, end in pairwise(starts):
        own = weights[tuple(batch["input_ids"][0, start:end].tolist())]
        assert batch["token_weights"][0, start:end].tolist() == pytest.approx(own)


def test_weights_that_sft_trainer_drops_are_refused(rows: Any, bank: Bank, tokenizer: Any, arguments: Any):
    with pytest.raises(UsageError, match="drops the column token_weights of the train dataset") as caught:
        sft(EMOSFTTrainer, rows, arguments, tokenizer, {"packing": True, "max_length": 32}, emo=bank)
    assert "packing=False" in caught.value.hint
    texts = [{"text": text, "token_weights": [1.0, 2.0]} for text in TEXTS]
    with pytest.raises(UsageError, match=r"a row has 2 token_weights and \d+ tokens"):
        sft(EMOSFTTrainer, texts, arguments, tokenizer, {}, emo=bank).train()


def streamed(rows: list[dict[str, Any]]) -> IterableDataset:
    """A dataset that does not name its columns."""
    return IterableDataset.from_generator(lambda: iter(rows))


@pytest.mark.parametrize("where", ["train", "eval", "one of several"])
def test_weights_of_a_stream_that_sft_trainer_drops_are_refused(
    where: str, rows: Any, bank: Bank, tokenizer: Any, arguments: Any
):
    plain = unweighted(rows)
    assert streamed(rows).column_names is None

    def make(weighted: list[dict[str, Any]], **settings: Any) -> Any:
        args = arguments(SFTConfig, **{"max_length": 32, "activation_checkpointing": False, "max_steps": 1, **settings})
        sets: Any = {"train_dataset": streamed(plain), "eval_dataset": streamed(weighted)}
        if where == "train":
            sets = {"train_dataset": streamed(weighted)}
        elif where != "eval":
            sets["eval_dataset"] = {"a": streamed(plain), where: streamed(weighted)}
        return EMOSFTTrainer(llama(), args, processing_class=tokenizer, emo=bank, **sets)

    with pytest.raises(UsageError, match=f"drops the column token_weights of the {where} dataset"):
        make(rows, packing=True)
    make(plain, packing=True).train()
    make(rows).train()


def test_weights_of_a_stream_reach_the_loss(rows: Any, bank: Bank, tokenizer: Any, arguments: Any):
    args = arguments(SFTConfig, max_length=None, activation_checkpointing=False, max_steps=1, shuffle_dataset=False)
    trainer = EMOSFTTrainer(llama(), args, train_dataset=streamed(rows), processing_class=tokenizer,
                            emo=LinearEMOLoss(bank, objective="emo", mixing="fixed", weight=0.7))  # fmt: skip
    trainer.train()
    assert losses(trainer)[0] == pytest.approx(oracle(llama(), rows[:8], bank, 0.7), abs=2e-5)


class Stream(torch.utils.data.IterableDataset):
    """Yields each row once."""

    def __init__(self, rows: Any) -> None:
        self.rows = iter(rows)

    def __iter__(self) -> Any:
        return self.rows


@pytest.mark.parametrize("make", [Stream, streamed, lambda rows: streamed(rows).map(lambda row: row)])
@pytest.mark.parametrize("settings", [{}, {"remove_unused_columns": False}, {"dataloader_num_workers": 1}], ids=str)
def test_the_function_refuses_weights_of_a_stream(
    make: Any, settings: Any, rows: Any, bank: Bank, tokenizer: Any, arguments: Any
):
    def run(data: Any, **settings: Any) -> Trainer:
        function = compute_loss_func(EMOLoss(bank))
        trainer = Trainer(llama(), arguments(max_steps=2, **settings), train_dataset=data, callbacks=[function],
                          data_collator=collator(tokenizer), compute_loss_func=function)  # fmt: skip
        trainer.train()
        return trainer

    # In a worker process, torch turns the error into a RuntimeError with the same message.
    with pytest.raises((UsageError, RuntimeError), match="the dataset has token_weights"):
        run(make(rows), **settings)
    plain = unweighted(rows[:16])
    # Weights can start at a later row, and a stream without weights loses no row.
    with pytest.raises((UsageError, RuntimeError), match="the dataset has token_weights"):
        run(make([*plain[:8], *rows[8:16]]), **settings)
    assert run(make(plain), **settings).state.global_step == 2


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
