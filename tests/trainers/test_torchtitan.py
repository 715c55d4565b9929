"""The loss and the tokenizer of torchtitan: in torchtitan itself if it is installed, and against its interface."""

import copy
import json
import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Replicate, Shard

from costbank import open_bank
from costbank.bank import Bank
from costbank.errors import ShapeError, TokenizerError, UsageError
from costbank.loss import EMOLoss
from costbank.trainers.split_logits import loss_sum
from tests.loss.oracle import token_losses
from tests.loss.processes import free_port, run_processes
from tests.trainers.conftest import TEXTS, VOCAB, Texts, llama, make_tokenizer
from tests.trainers.plain_loop import RATE, STEPS, batch_pairs, descend, grouped, plain_losses, shifted
from tests.trainers.stand_ins import framework, is_installed

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
needs_torchtitan = pytest.mark.skipif(not is_installed("torchtitan"), reason="torchtitan is not installed")


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[bool]:
    with framework("torchtitan") as real:
        yield real


def make(bank: Bank, **settings: Any) -> Any:
    from costbank.trainers.torchtitan import TorchtitanEMOLoss

    config = TorchtitanEMOLoss.Config(bank=f"{bank.path}/", **settings)
    return config.build() if hasattr(config, "build") else TorchtitanEMOLoss(config)


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, VOCAB, (2, 8), generator=generator)
    labels[0, :3] = -100
    return torch.randn(2, 8, VOCAB, generator=generator), labels


def test_the_value_is_the_definitions(bank: Bank, capsys: pytest.CaptureFixture[str]):
    logits, labels = inputs()
    loss = EMOLoss(bank, weight=0.3)
    total = float(token_losses(logits.flatten(0, 1), labels.flatten(), loss.costs, loss.options).sum())
    ours = make(bank, weight=0.3)
    assert f"in force in torchtitan: bank tiny@{bank.id}" in capsys.readouterr().err
    value, metrics = ours(logits, labels, torch.tensor(31), positions=None)
    assert (value.item(), metrics) == (pytest.approx(total / 31, abs=1e-5), {})
    assert ours(logits, labels)[0].item() == pytest.approx(total, abs=1e-4)


def test_ten_steps_are_those_of_a_plain_loop(bank: Bank, texts: Texts):
    """As the trainer calls it: labels shifted by the dataset, and the tokens of two accumulated batches."""
    steps = batch_pairs(texts)
    plain = plain_losses(llama(), steps, EMOLoss(bank))
    model, loss, losses = llama().train(), make(bank), []
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    for pair in steps:
        count = sum((shifted(batch["labels"]) != -100).sum() for batch in pair)
        total = 0.0
        for batch in pair:
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            value, _ = loss(logits, shifted(batch["labels"]), count)
            value.backward()
            total += value.item()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    assert losses == pytest.approx(plain, abs=1e-4)


def config(**changes: Any) -> Any:
    from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss
    from torchtitan.components.tokenizer import HuggingFaceTokenizer

    loss = ChunkedLossWrapper.Config(num_chunks=2, loss_fn=CrossEntropyLoss.Config(global_vocab_size=VOCAB))
    return SimpleNamespace(loss=loss, tokenizer=HuggingFaceTokenizer.Config(), **changes)


def test_a_config_function_replaces_cross_entropy_and_checks_the_tokenizer(bank: Bank, tokenizer: Any, tmp_path: Path):
    from torchtitan.components.loss import CrossEntropyLoss, MSELoss

    from costbank.trainers import torchtitan as ours

    name = f"{bank.path}/"
    changed = ours.with_emo(config(), name, weight=0.3)
    inner = changed.loss.loss_fn
    assert (changed.loss.num_chunks, inner.bank, inner.weight, inner.global_vocab_size) == (2, name, 0.3, VOCAB)
    assert isinstance(inner, ours.TorchtitanEMOLoss.Config)
    alone = config()
    alone.loss = CrossEntropyLoss.Config()
    assert isinstance(ours.with_emo(alone, name).loss, ours.TorchtitanEMOLoss.Config)
    tokenizer.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    ours.EMOTokenizer(changed.tokenizer, tokenizer_path=str(tmp_path))
    make_tokenizer([text[::-1] for text in TEXTS]).backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match="ids differ"):
        ours.EMOTokenizer(changed.tokenizer, tokenizer_path=str(tmp_path))
    with pytest.raises(UsageError, match="speed: no such setting"):
        ours.with_emo(config(), name, speed=0.3)
    regression = config()
    regression.loss = MSELoss.Config()
    with pytest.raises(UsageError, match="not a cross-entropy"):
        ours.with_emo(regression, name)
    with pytest.raises(UsageError, match="cannot be checked"):
        ours.with_emo(SimpleNamespace(loss=CrossEntropyLoss.Config(), tokenizer=None), name)


def test_a_bank_of_another_width_is_refused(bank: Bank):
    with pytest.raises(ShapeError, match="500 wide"):
        make(bank, global_vocab_size=500)
    with pytest.raises(ShapeError, match="500 wide"):
        make(bank)(torch.zeros(1, 2, 500), torch.tensor([[3, 4]]))
    with pytest.raises(UsageError, match=r"loss\.bank is not set"):
        make_without_bank()


def make_without_bank() -> None:
    from costbank.trainers.torchtitan import TorchtitanEMOLoss

    TorchtitanEMOLoss(TorchtitanEMOLoss.Config())


def split(rank: int, port: int, bank_path: str) -> None:
    """Logits that two processes share, by vocabulary or by rows, as plain slices and as DTensors."""
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    logits, labels = inputs()
    loss = EMOLoss(open_bank(bank_path))
    reference = logits.clone().requires_grad_()
    total = loss_sum(loss, reference, labels)
    total.backward()
    half = VOCAB // 2
    columns = slice(rank * half, rank * half + half)
    local = logits[..., columns].clone().requires_grad_()
    value = loss_sum(loss, local, labels, group=distributed.group.WORLD, vocab_size=VOCAB)
    value.backward()
    torch.testing.assert_close(value, total, atol=1e-4, rtol=0)
    torch.testing.assert_close(local.grad, reference.grad[..., columns], atol=1e-6, rtol=0)
    mesh = init_device_mesh("cpu", (1, 2), mesh_dim_names=("dp", "tp"))
    rows = slice(rank, rank + 1)
    by_vocab = (Shard(0), Shard(2)), logits[..., columns], labels
    by_rows = (Replicate(), Shard(0)), logits[rows], labels[rows]
    for placements, part, kept in (by_vocab, by_rows):
        leaf = part.clone().requires_grad_()
        whole = DTensor.from_local(leaf, mesh, placements)
        spots = tuple(Replicate() if p.is_shard() and p.dim == 2 else p for p in placements)
        both = loss_sum(loss, whole, DTensor.from_local(kept, mesh, spots))
        torch.testing.assert_close(both.full_tensor(), total, atol=1e-4, rtol=0)
        both.full_tensor().backward()
        expected = reference.grad[..., columns] if part.shape[0] == 2 else reference.grad[rows]
        torch.testing.assert_close(leaf.grad, expected, atol=1e-6, rtol=0)
    distributed.barrier()
    distributed.destroy_process_group()


def test_two_processes_share_the_vocabulary_or_the_rows(bank: Bank):
    run_processes(split, (free_port(), f"{bank.path}/"), 2)


@needs_torchtitan
def test_torchtitans_chunked_loss_takes_it(bank: Bank):
    """`ChunkedLossWrapper` gives the value and the gradients of this loss on all logits at once."""
    from torchtitan.components.loss import ChunkedLossWrapper

    from costbank.trainers.torchtitan import TorchtitanEMOLoss

    name = f"{bank.path}/"
    chunked = ChunkedLossWrapper.Config(num_chunks=4, loss_fn=TorchtitanEMOLoss.Config(bank=name)).build()
    torch.manual_seed(0)
    head, hidden = torch.nn.Linear(16, VOCAB, bias=False), torch.randn(2, 8, 16)
    _, labels = inputs()
    chunked.set_lm_head(head)
    leaf = hidden.clone().requires_grad_()
    value, _ = chunked(leaf, labels, torch.tensor(13))
    value.backward()
    gradients = leaf.grad, head.weight.grad.clone()
    head.weight.grad = None
    leaf = hidden.clone().requires_grad_()
    expected = EMOLoss(bank, reduction="sum")(head(leaf), labels) / 13
    expected.backward()
    torch.testing.assert_close(value, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(gradients, (leaf.grad, head.weight.grad), atol=1e-6, rtol=0)


@needs_torchtitan
def test_its_command_line_chooses_a_config_function(bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from torchtitan.config.manager import ConfigManager

    (tmp_path / "emo_configs.py").write_text(
        "from costbank.trainers.torchtitan import with_emo\n"
        "from torchtitan.models.llama3.config_registry import llama3_debugmodel\n\n\n"
        f"def tiny_emo():\n    return with_emo(llama3_debugmodel(), {f'{bank.path}/'!r})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = ["--module", "emo_configs", "--config", "tiny_emo", "--loss.loss-fn.weight", "0.3"]
    parsed = ConfigManager().parse_args(copy.copy(arguments))
    assert (parsed.loss.loss_fn.weight, parsed.loss.loss_fn.bank) == (0.3, f"{bank.path}/")
    assert parsed.tokenizer.bank == f"{bank.path}/"


class CPU:
    """The functions of `torch.cuda` that torchtitan calls, for the CPU."""

    total_memory = 1

    def __getattr__(self, name: str) -> Any:
        return lambda *_arguments: {"device_count": 1, "current_device": 0, "get_device_name": "CPU",
                                    "get_device_properties": self, "memory_stats": {}}.get(name)  # fmt: skip


def tiny_llama3(folder: Path, bank_path: str, processes: int = 1, columns: int = 1) -> Any:
    """torchtitan's config of a small Llama, with our texts, and with attention that the CPU can train.

    `columns` processes share the logits of a row, and the others share the rows.
    """
    from datasets import load_dataset
    from torchtitan.components.optimizer import default_adamw
    from torchtitan.hf_datasets import DatasetConfig, text_datasets
    from torchtitan.models.common.attention import ScaledDotProductAttention
    from torchtitan.models.llama3.config_registry import llama3_debugmodel

    from costbank.trainers.torchtitan import with_emo

    config = llama3_debugmodel()
    model = config.model_spec.model
    model.vocab_size = model.tok_embeddings.num_embeddings = model.lm_head.out_features = VOCAB
    model.layers = model.layers[:2]
    for layer in model.layers:
        layer.attention.inner_attention = ScaledDotProductAttention.Config()
    text_datasets.DATASETS["texts"] = DatasetConfig(
        path=str(folder / "texts.jsonl"),
        loader=lambda path: load_dataset("json", data_files=path, split="train", cache_dir=str(folder / "cache")),
        sample_processor=lambda row: row["text"],
    )
    config.dataloader.dataset = "texts"
    config.hf_assets_path, config.dump_folder = str(folder), str(folder / "out")
    config.optimizer = default_adamw(lr=0.05, eps=0.1, weight_decay=0.0)
    config.lr_scheduler.warmup_steps, config.lr_scheduler.min_lr_factor = 0, 1.0
    config.training.local_batch_size, config.training.global_batch_size = 2, 4 * processes // columns
    config.training.seq_len, config.training.steps, config.training.max_norm = 16, STEPS, 1e9
    config.training.disable_cuda_graphs, config.training.mixed_precision_param = True, "float32"
    config.validator.enable = config.checkpoint.enable = False
    config.parallelism.tensor_parallel_degree = columns
    # Its default, `spmd_types`, needs a later PyTorch with several processes.
    config.parallelism.spmd_backend = "partial_dtensor"
    config.loss.loss_fn.global_vocab_size = VOCAB
    return with_emo(config, bank_path, weight=0.3)


def record_widths(loss: Any) -> list[int]:
    """The number of columns of the logits that this process has in each call of a loss from now on."""
    widths, call = [], type(loss).__call__

    def recorded(self: Any, logits: Any, *others: Any, **named: Any) -> Any:
        widths.append((logits.to_local() if isinstance(logits, DTensor) else logits).shape[-1])
        return call(self, logits, *others, **named)

    type(loss).__call__ = recorded
    return widths


def train_torchtitan(rank: int, port: int, folder: Path, bank_path: str, processes: int, columns: int) -> None:
    """Train with torchtitan's `Trainer`, and save its first weights, its batches and its losses."""
    names = {"RANK": rank, "LOCAL_RANK": 0, "WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    torch.set_num_threads(1)
    from torchtitan.tools import utils

    utils.device_type, utils.device_module = "cpu", CPU()
    if not hasattr(distributed, "set_timeout"):
        # torchtitan's version for a later PyTorch shortens timeouts after the first step.
        distributed.set_timeout = lambda *_arguments: None
    trainer = tiny_llama3(folder, bank_path, processes, columns).build()
    (model,) = trainer.model_parts
    assert (trainer.parallel_dims.dp_shard, trainer.parallel_dims.tp) == (processes // columns, columns)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(enable=True)  # gloo has no other reduction
    widths = record_widths(trainer.loss_fn.loss_fn)
    batches, losses, generate, log = [], [], trainer.batch_generator, trainer.metrics_processor.log
    weights = {name: value.full_tensor().clone() if isinstance(value, DTensor) else value.clone()
               for name, value in model.state_dict().items()}  # fmt: skip

    def ignoring_some_labels(data: Any) -> Iterator[Any]:
        for number, (batch, labels) in enumerate(generate(data)):
            labels[:, : 1 + (number + rank // columns) % 5] = -100
            batches.append((batch["input"].clone(), batch["positions"].clone(), labels.clone()))
            yield batch, labels

    def recorded(step: int, loss: float, *others: Any, **named: Any) -> None:
        losses.append(loss)
        log(step, loss, *others, **named)

    trainer.batch_generator, trainer.metrics_processor.log = ignoring_some_labels, recorded
    trainer.train()
    assert set(widths) == {VOCAB // columns}
    torch.save((weights, batches, losses), folder / f"record-{rank}.pt")
    distributed.barrier()
    # A normal exit would still tear down the process group, whose threads can deadlock.
    os._exit(0)


def plain_torchtitan(
    folder: Path, bank: Bank, weights: dict[str, torch.Tensor], steps: Sequence[Sequence[Any]]
) -> list[float]:
    """The losses of the same steps in a plain loop, with torchtitan's model and optimizer."""
    model = tiny_llama3(folder, f"{bank.path}/").model_spec.model.build()
    model.load_state_dict(weights)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, betas=(0.9, 0.95), eps=0.1, weight_decay=0.0)
    loss = EMOLoss(bank, weight=0.3, reduction="sum")

    def part(batch: Any, batches: Sequence[Any]) -> torch.Tensor:
        tokens, positions, labels = batch
        return loss(model(tokens, positions=positions), labels) / sum(int((of != -100).sum()) for *_, of in batches)

    return descend(optimizer, steps, part)


@needs_torchtitan
@pytest.mark.parametrize(("processes", "columns"), [(1, 1), (2, 1), (2, 2)], ids=["one", "rows", "columns"])
def test_torchtitans_trainer_trains_with_it(processes: int, columns: int, bank: Bank, tokenizer: Any, tmp_path: Path):
    """On the CPU, with its chunked loss and two accumulated batches; two processes share the rows or the logits."""
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    run_processes(train_torchtitan, (free_port(), tmp_path, f"{bank.path}/", processes, columns), processes)
    records = [torch.load(tmp_path / f"record-{rank}.pt") for rank in range(0, processes, columns)]
    weights, _, losses = records[0]
    assert len(losses) == STEPS
    assert losses[-1] < losses[0] - 0.5
    steps = [list(chain(*parts)) for parts in zip(*(grouped(batches, 2) for _, batches, _ in records), strict=True)]
    assert losses == pytest.approx(plain_torchtitan(tmp_path, bank, weights, steps), abs=1e-4)
