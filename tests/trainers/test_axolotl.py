"""The plugin for axolotl: in axolotl itself if it is installed, and always against its interface."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers as tf

from costbank.bank import Bank
from costbank.errors import MissingExtraError, ShapeError, TokenizerError, UsageError
from costbank.loss import EMOLoss
from tests.trainers.conftest import TEXTS, llama, make_tokenizer
from tests.trainers.plain_loop import RATE, STEPS, Recorder, grouped, logged_losses, plain_losses, record_training_steps
from tests.trainers.recorded_processes import train_in_processes
from tests.trainers.stand_ins import framework, is_installed

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
NAME = "costbank.trainers.axolotl.EMOPlugin"


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[bool]:
    with framework("axolotl") as real:
        yield real


@pytest.fixture
def plugin() -> Any:
    from costbank.trainers.axolotl import EMOPlugin

    return EMOPlugin()


@pytest.fixture
def settings(bank: Bank) -> dict[str, Any]:
    return {"plugins": [NAME], "costbank_bank": f"{bank.path}/"}


def trained(plugin: Any, cfg: dict[str, Any], arguments: Any, texts: Any, **more: Any) -> tuple[Any, list[float]]:
    """Ten steps as axolotl makes them, and those of a plain loop."""
    model = llama()
    start, recorder = copy.deepcopy(model), Recorder(tf.default_data_collator)
    args = arguments(max_steps=STEPS, learning_rate=RATE, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    trainer = tf.Trainer(model, args, train_dataset=texts, data_collator=recorder, **more)
    plugin.register(cfg)
    plugin.post_trainer_create(cfg, trainer)
    trainer.train()
    options = {"weight": cfg["costbank_weight"]} if "costbank_weight" in cfg else {}
    loss = EMOLoss(trainer.callback_handler.callbacks[-1].function.bank, **options)
    return trainer, plain_losses(start, grouped(recorder.batches, 4), loss)


def test_ten_steps_are_those_of_a_plain_loop(
    plugin: Any, settings: dict[str, Any], arguments: Any, texts: Any, tokenizer: Any, bank: Bank,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    cfg = {**settings, "costbank_weight": 0.3}
    trainer, plain = trained(plugin, cfg, arguments, texts, processing_class=tokenizer)
    assert logged_losses(trainer) == pytest.approx(plain, abs=1e-4)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("costbank:")]
    assert f"in axolotl: bank tiny@{bank.id}, objective neighbor_smoothing" in line
    assert line.endswith("weight 0.3")


def test_the_keys_of_the_yaml_file_are_typed(plugin: Any):
    from costbank.trainers.axolotl import EMOArgs

    assert plugin.get_input_args() == f"{EMOArgs.__module__}.{EMOArgs.__qualname__}"
    args = EMOArgs(costbank_bank="a", costbank_options={"temperature": 2.0})
    assert (args.costbank_weight, args.costbank_options) == (None, {"temperature": 2.0})
    with pytest.raises(ValueError, match="costbank_weight"):
        EMOArgs(costbank_bank="a", costbank_weight="much")


@pytest.mark.parametrize(
    "other",
    [
        {"liger_fused_linear_cross_entropy": True},
        {"cut_cross_entropy": True},
        {"chunked_cross_entropy": True},
        {"kd_trainer": True},
        {"rl": "dpo"},
        {"label_smoothing_factor": 0.1},
    ],
    ids=str,
)
def test_another_loss_is_refused_when_the_file_is_read(plugin: Any, settings: dict[str, Any], other: dict[str, Any]):
    with pytest.raises(UsageError, match=f"{next(iter(other))}=.*another loss would take the place of this one"):
        plugin.register({**settings, **other})


def test_the_plugin_of_cut_cross_entropy_is_refused(plugin: Any, settings: dict[str, Any]):
    cce = "axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin"
    with pytest.raises(UsageError, match="is among the plugins"):
        plugin.register({**settings, "plugins": [cce, NAME]})
    plugin.register({**settings, "plugins": [cce, NAME], "cut_cross_entropy": False})


def test_a_missing_bank_is_refused(plugin: Any):
    with pytest.raises(UsageError, match="costbank_bank is not set"):
        plugin.register({"plugins": [NAME]})
    # axolotl keeps the plugins of earlier configurations of its process.
    plugin.register({"plugins": ["another.Plugin"]})
    plugin.post_trainer_create({"plugins": None}, None)


def test_another_tokenizer_or_vocabulary_is_refused_when_the_trainer_is_made(
    plugin: Any, settings: dict[str, Any], arguments: Any, texts: Any, tokenizer: Any
):
    other = make_tokenizer([text[::-1] for text in TEXTS])
    with pytest.raises(TokenizerError, match="ids differ"):
        plugin.post_trainer_create(
            settings, tf.Trainer(llama(), arguments(), train_dataset=texts, processing_class=other)
        )
    model = llama()
    model.resize_token_embeddings(500)
    with pytest.raises(ShapeError, match="500 wide"):
        plugin.post_trainer_create(
            settings, tf.Trainer(model, arguments(), train_dataset=texts, processing_class=tokenizer)
        )


def test_a_missing_library_is_no_import_error():
    """axolotl logs the ImportError of a plugin, and trains without it."""
    assert not issubclass(MissingExtraError, ImportError)


def write_run(folder: Path, bank: Bank, tokenizer: Any, changes: dict[str, Any]) -> Path:
    """A model, a tokenizer, texts, and axolotl's YAML file."""
    model = llama()
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = []
    for number, text in enumerate(TEXTS):
        question, answer = text.split(" sees ")
        answers = " and ".join([answer] * (1 + number % 5))
        rows.append(json.dumps({"instruction": question, "input": "", "output": f"sees {answers}"}) + "\n")
    (folder / "data.jsonl").write_text("".join(rows))
    settings = {
        "base_model": str(folder / "model"), "tokenizer_type": "PreTrainedTokenizerFast", "plugins": [NAME],
        "costbank_bank": f"{bank.path}/", "costbank_weight": 0.3,
        "datasets": [{"path": str(folder / "data.jsonl"), "ds_type": "json", "type": "alpaca"}],
        "dataset_prepared_path": str(folder / "prepared"), "output_dir": str(folder / "out"), "sequence_len": 512,
        "micro_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": STEPS, "learning_rate": RATE,
        "optimizer": "sgd", "lr_scheduler": "constant", "max_grad_norm": 0.0, "logging_steps": 1, "bf16": False,
        "fp16": False, "tf32": False, "use_cpu": True, "val_set_size": 0, "save_strategy": "no",
        "special_tokens": {"pad_token": "<pad>"}, "train_on_inputs": False, "dataset_num_proc": 1, **changes,
    }  # fmt: skip
    path = folder / "run.yaml"
    path.write_text(json.dumps(settings))  # JSON is YAML
    return path


needs_axolotl = pytest.mark.skipif(not is_installed("axolotl"), reason="axolotl is not installed")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXOLOTL_DO_NOT_TRACK", "1")


def run_axolotl(path: Path) -> Any:
    """What `axolotl train` does. With several processes it would give each a GPU of its own."""
    from axolotl.cli.args import TrainerCliArgs
    from axolotl.cli.config import load_cfg
    from axolotl.common.datasets import load_datasets
    from axolotl.train import train

    cfg = load_cfg(str(path))
    cfg.device_map = {"": "cpu"}
    _, _, trainer = train(cfg=cfg, dataset_meta=load_datasets(cfg=cfg, cli_args=TrainerCliArgs()))
    return trainer


@needs_axolotl
@pytest.mark.parametrize(
    "changes",
    [{}, {"sample_packing": True, "pad_to_sequence_len": True, "gradient_accumulation_steps": 1}],
    ids=["padded", "packed"],
)
def test_axolotl_trains_with_it(
    changes: dict[str, Any], bank: Bank, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    batches, _ = record_training_steps(monkeypatch)
    trainer = run_axolotl(write_run(tmp_path, bank, tokenizer, changes))
    start = tf.LlamaForCausalLM.from_pretrained(tmp_path / "model")
    assert any((batch["labels"] == -100).any() for batch in batches)
    steps = grouped(batches, changes.get("gradient_accumulation_steps", 2))
    # axolotl gives a model's loss no number of tokens.
    plain = plain_losses(start, steps, EMOLoss(bank, weight=0.3), means_of_batches=True)
    assert logged_losses(trainer) == pytest.approx(plain, abs=1e-4)


@needs_axolotl
@pytest.mark.parametrize(
    "changes",
    [
        {"chunked_cross_entropy": True},
        {"plugins": [NAME, "axolotl.integrations.liger.LigerPlugin"], "liger_fused_linear_cross_entropy": True},
    ],
    ids=["chunked", "liger"],
)
def test_axolotl_stops_before_it_loads_the_model(changes: dict[str, Any], bank: Bank, tokenizer: Any, tmp_path: Path):
    with pytest.raises(UsageError, match="another loss would take the place"):
        run_axolotl(write_run(tmp_path, bank, tokenizer, changes))


def run_axolotl_in_a_process(folder: Path) -> None:
    run_axolotl(folder / "run.yaml")


@needs_axolotl
def test_axolotl_trains_with_it_in_two_processes(bank: Bank, tokenizer: Any, tmp_path: Path):
    write_run(tmp_path, bank, tokenizer, {"micro_batch_size": 1, "ddp_backend": "gloo", "dataloader_num_workers": 0})
    steps, losses = train_in_processes(run_axolotl_in_a_process, tmp_path, 2)
    start = tf.LlamaForCausalLM.from_pretrained(tmp_path / "model")
    plain = plain_losses(start, steps, EMOLoss(bank, weight=0.3), means_of_batches=True)
    assert losses == pytest.approx(plain, abs=1e-4)
