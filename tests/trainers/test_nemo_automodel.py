"""The loss of NeMo Automodel: in Automodel itself if it is installed, and always against its interface."""

import copy
import json
import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from costbank.bank import Bank
from costbank.errors import InputNotFoundError, ShapeError, TokenizerError, UsageError
from costbank.loss import EMOLoss
from tests.loss.oracle import token_losses
from tests.loss.processes import free_port, run_processes
from tests.trainers.conftest import TEXTS, VOCAB, Texts, llama, make_tokenizer
from tests.trainers.plain_loop import RATE, STEPS, batch_pairs, descend, plain_losses, shifted
from tests.trainers.stand_ins import framework, is_installed

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


needs_automodel = pytest.mark.skipif(not is_installed("nemo_automodel"), reason="nemo-automodel is not installed")


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[bool]:
    with framework("nemo_automodel") as real:
        yield real


@pytest.fixture
def settings(bank: Bank, tokenizer: Any, tmp_path: Path) -> dict[str, str]:
    tokenizer.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    return {"bank": f"{bank.path}/", "tokenizer": str(tmp_path)}


def make(settings: dict[str, Any]) -> Any:
    from costbank.trainers.nemo_automodel import AutomodelEMOLoss

    return AutomodelEMOLoss(**settings)


def test_the_value_is_the_definitions(bank: Bank, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 7, VOCAB, generator=generator, requires_grad=True)
    labels = torch.randint(2, VOCAB, (2, 7), generator=generator)
    labels[0, :3] = -100
    loss = EMOLoss(bank, weight=0.3, temperature=2.0)
    each = token_losses(logits.detach().flatten(0, 1), labels.flatten(), loss.costs, loss.options).view(2, 7)
    ours = make({**settings, "weight": 0.3, "temperature": 2.0})
    assert f"in force in NeMo Automodel: bank tiny@{bank.id}" in capsys.readouterr().err
    # Labels are already shifted.
    assert ours(logits=logits, labels=labels).item() == pytest.approx(float(each.sum()), abs=1e-4)
    assert ours(logits=logits, labels=labels, num_label_tokens=31).item() == pytest.approx(float(each.sum()) / 31)
    weights = torch.rand(2, 7, generator=generator)
    weighted = ours(logits=logits, labels=labels, num_label_tokens=31, loss_weights=weights)
    assert weighted.item() == pytest.approx(float((each * weights).sum()) / 31, abs=1e-5)
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 2:] = 0
    assert ours(logits, labels, mask).item() == pytest.approx(float((each * mask).sum()), abs=1e-4)
    nothing = ours(logits=logits, labels=torch.full_like(labels, -100), num_label_tokens=0)
    nothing.backward()
    assert nothing.item() == 0 == logits.grad.abs().max()


def test_ten_steps_are_those_of_a_plain_loop(bank: Bank, settings: dict[str, Any], texts: Texts):
    """As the recipe calls it: labels shifted by the dataset, and a loss for each of two accumulated batches."""
    steps = batch_pairs(texts)
    plain = plain_losses(llama(), steps, EMOLoss(bank))
    model, loss, losses = llama().train(), make(settings), []
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    for pair in steps:
        labels = [shifted(batch["labels"]) for batch in pair]
        count = sum(int((one != -100).sum()) for one in labels)
        total = 0.0
        for batch, one in zip(pair, labels, strict=True):
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            value = calculate(loss, logits=logits, labels=one, num_label_tokens=count)
            value.backward()
            total += value.item()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    assert losses == pytest.approx(plain, abs=1e-4)


def calculate(loss: Any, **arguments: Any) -> torch.Tensor:
    if is_installed("nemo_automodel"):
        from nemo_automodel.components.loss.utils import calculate_loss

        return calculate_loss(loss, model=None, hidden_states=None, lm_weight=None, **arguments)
    return loss(**arguments)


def test_a_wrong_bank_or_tokenizer_is_refused(settings: dict[str, Any], tmp_path: Path):
    (tmp_path / "other").mkdir()
    other = make_tokenizer([text[::-1] for text in TEXTS])
    other.backend_tokenizer.save(str(tmp_path / "other" / "tokenizer.json"))
    with pytest.raises(TokenizerError, match="ids differ"):
        make({**settings, "tokenizer": str(tmp_path / "other")})
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputNotFoundError, match=r"has no tokenizer\.json"):
        make({**settings, "tokenizer": str(tmp_path / "empty")})
    with pytest.raises(UsageError, match="bank is not set"):
        make({**settings, "bank": ""})
    loss = make(settings)
    with pytest.raises(ShapeError, match="500 wide"):
        loss(torch.zeros(1, 2, 500), torch.tensor([[3, 4]]))
    with pytest.raises(UsageError, match="no logits"):
        loss(None, torch.tensor([[3, 4]]))


@needs_automodel
def test_automodel_builds_it_from_yaml(settings: dict[str, Any], tmp_path: Path):
    from nemo_automodel.components.config.loader import ConfigNode

    target = "costbank.trainers.nemo_automodel.AutomodelEMOLoss"
    loss = ConfigNode({"_target_": target, **settings, "weight": 0.3}).instantiate()
    assert loss.emo.options.weight == 0.3
    # A recipe replaces a loss that is none of these if the model's forward has no logits_to_keep.
    from nemo_automodel.components.loss.masked_ce import MaskedCrossEntropy

    assert isinstance(loss, MaskedCrossEntropy)


def recipe_settings(folder: Path, settings: dict[str, str]) -> dict[str, Any]:
    """The settings of a recipe that trains a small model on prompts and answers."""
    return {
        "step_scheduler": {"global_batch_size": 4, "local_batch_size": 2, "max_steps": STEPS, "num_epochs": 10,
                           "ckpt_every_steps": 1000, "val_every_steps": 1000},
        "dist_env": {"backend": "gloo", "timeout_minutes": 2},
        "distributed": {"strategy": "ddp"},
        "model": {"_target_": "nemo_automodel.NeMoAutoModelForCausalLM.from_pretrained",
                  "pretrained_model_name_or_path": str(folder), "torch_dtype": "float32",
                  "attn_implementation": "sdpa", "use_liger_kernel": False},
        "loss_fn": {"_target_": "costbank.trainers.nemo_automodel.AutomodelEMOLoss", **settings, "weight": 0.3},
        "dataset": {
            "_target_": "nemo_automodel.components.datasets.llm.column_mapped_text_instruction_dataset."
            "ColumnMappedTextInstructionDataset",
            "path_or_dataset_id": str(folder / "texts.jsonl"), "answer_only_loss_mask": True,
            "column_mapping": {"question": "question", "answer": "answer"},
        },
        "dataloader": {"_target_": "torchdata.stateful_dataloader.StatefulDataLoader",
                       "collate_fn": "nemo_automodel.components.datasets.utils.default_collater", "shuffle": False},
        "optimizer": {"_target_": "torch.optim.SGD", "lr": RATE},
        "clip_grad_norm": {"max_norm": 1e9},
        "checkpoint": {"enabled": False, "checkpoint_dir": str(folder / "out")},
    }  # fmt: skip


class WithoutCUDA:
    """The module torch, in which every device is the CPU."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def device(self, *_arguments: Any) -> torch.device:
        return torch.device("cpu")


def train_recipe(rank: int, port: int, folder: Path, settings: dict[str, str], processes: int) -> None:
    """Train with Automodel's recipe, and save its batches and its losses."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    torch.set_num_threads(1)
    from nemo_automodel._transformers import auto_model
    from nemo_automodel.components.config.loader import ConfigNode
    from nemo_automodel.recipes.llm.train_ft import TrainFinetuneRecipeForNextTokenPrediction

    # The recipe puts the model on a GPU, and measures the GPU's memory.
    auto_model.torch = WithoutCUDA()
    torch.cuda.current_device = lambda: "cpu"
    for name in ("reset_peak_memory_stats", "empty_cache", "max_memory_allocated"):
        setattr(torch.cuda, name, lambda *_arguments: 0)
    recipe = TrainFinetuneRecipeForNextTokenPrediction(ConfigNode(recipe_settings(folder, settings)))
    recipe.setup()
    steps, losses, step = [], [], recipe._run_train_optim_step

    def recorded(batches: Any, *rest: Any) -> Any:
        steps.append(copy.deepcopy(batches))
        result = step(batches, *rest)
        losses.append(result.metrics["loss"])
        return result

    recipe._run_train_optim_step = recorded
    recipe.run_train_validation_loop()
    assert distributed.get_world_size() == processes
    torch.save((steps, losses), folder / f"record-{rank}.pt")
    distributed.barrier()
    # A normal exit would still tear down the process group, whose threads can deadlock.
    os._exit(0)


@needs_automodel
@pytest.mark.parametrize("processes", [1, 2])
def test_automodels_recipe_trains_with_it(
    processes: int, bank: Bank, settings: dict[str, Any], tokenizer: Any, tmp_path: Path
):
    llama().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    rows = []
    for number, text in enumerate(TEXTS):
        question, answer = text.split(" sees ")
        row = {"question": question, "answer": " and ".join([answer] * (1 + number % 3))}
        rows.append(json.dumps(row) + "\n")
    (tmp_path / "texts.jsonl").write_text("".join(rows))
    run_processes(train_recipe, (free_port(), tmp_path, settings, processes), processes)
    records = [torch.load(tmp_path / f"record-{rank}.pt", weights_only=False) for rank in range(processes)]
    steps = [list(chain(*batches)) for batches in zip(*(steps for steps, _ in records), strict=True)]
    assert {len(batches) for batches in steps} == {2}
    # Accumulated by one process, or one batch of each of two.
    assert all(one["input_ids"].tolist() != other["input_ids"].tolist() for one, other in steps)
    assert all((batch["labels"] == -100).any() for batches in steps for batch in batches)
    model, loss = llama().train(), EMOLoss(bank, weight=0.3, reduction="sum")

    def part(batch: Any, batches: Sequence[Any]) -> torch.Tensor:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return loss(logits, batch["labels"]) / sum(int((each["labels"] != -100).sum()) for each in batches)

    plain = descend(torch.optim.SGD(model.parameters(), lr=RATE), steps, part)
    assert len(plain) == STEPS
    assert records[0][1] == pytest.approx(plain, abs=1e-4)
