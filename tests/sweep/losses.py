"""Whether the trainer's loss is right for every class of the installed transformers: `python -m tests.sweep.losses`.

Every language model that can be built tiny from its config is trained for one batch in float32, with its initial logits
and with logits of about 100, where softcaps take effect. The linear loss of `EMOTrainerMixin` is compared with the loss
of the model's own logits, and cross-entropy with the model's own loss: values, and the gradients of all parameters.
Each class has its own process, with limits of memory and time.

    python -m tests.sweep.losses [--rows FILE] [CLASS ...]   print a row for each class; add them to FILE as JSON lines
    python -m tests.sweep.losses --table FILE                print the rows of FILE as docs/sweep.md
"""

import argparse
import json
import logging
import os
import resource
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tests.sweep.families import FAMILIES, MORE_CLASSES
from tests.sweep.heads import classes
from tests.sweep.tiny import VOCAB, UnbuildableError, build, inputs_for

__all__ = ["Row", "examine", "language_models"]

_CPU_SECONDS, _MEMORY_BYTES = 60, 3 << 30
# In float32 at logits of 100, a loss of about 50 has a last digit of 4e-6.
_VALUE, _GRADIENT = 2e-5, 2e-3
_LARGE = 100.0


@dataclass(frozen=True)
class Row:
    """The result of one class.

    Attributes:
        name: of the class.
        verdict: `right`, `refused` (by the linear loss), `refused whole` (by both losses), `wrong`, `random` (the
            model's own loss differs between calls), `not called`, `not built` or `ended` (out of time or memory).
        detail: the error message, the difference, or why there is no model.
        value: the largest relative difference between the linear loss and the loss of full logits.
        gradient: the same for gradients: the largest of all parameters.
        own_value: the largest relative difference between cross-entropy and the model's own loss.
        own_gradient: the same for gradients.
        applies: what the model does between its head and its logits.
        shift: whether labels are shifted; None if no batch was measured.
        measured: whether `compute_loss_func` can measure `shift` without a batch; if not, the kind of model decides.
        largest: the largest logit.
    """

    name: str
    verdict: str
    detail: str = ""
    value: float = 0.0
    gradient: float = 0.0
    own_value: float | None = None
    own_gradient: float | None = None
    applies: str = ""
    shift: bool | None = None
    measured: bool = False
    largest: float = 0.0


def language_models() -> list[str]:
    """The names of the classes that the sweep tests."""
    return sorted({*classes(), *MORE_CLASSES})


def examine(name: str, folder: str, *, kind: type | None = None) -> Row:
    """Train one class for a batch, with each loss.

    Args:
        name: the name of the class in transformers.
        folder: the folder for the Trainer.
        kind: the class itself, if it is not in transformers.
    """
    import torch
    import transformers

    family = FAMILIES.get(name, {})
    try:
        model = build(kind or getattr(transformers, name), family.get("config"))
        head = model.get_output_embeddings()
        width = VOCAB if getattr(head, "weight", None) is None else len(head.weight)
        inputs = {**inputs_for(model, min(width, VOCAB)), **family.get("inputs", {})}
    except UnbuildableError as error:
        return Row(name, "not built", str(error))
    width = min(width, VOCAB)
    labels = torch.randint(width // 2 + 1, width, (2, 9), generator=torch.Generator().manual_seed(1))
    labels[0, 2:4] = labels[1, 5:] = -100
    if family.get("decoder_inputs"):
        inputs["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels)
    inputs["labels"] = labels
    try:
        with torch.no_grad():
            outputs = model(**inputs)
        logits = outputs["logits"]
    except Exception as error:
        return Row(name, "not called", f"{type(error).__name__}: {' '.join(str(error).split())[:160]}")
    row, costs = Row(name, "right"), _costs(logits.shape[-1])
    for large in (False, True):
        if large:
            layer = _last_layer(model, head, logits.shape[-1])
            if layer is None:
                break
            _enlarge(model, layer, inputs)
        row = _compare(row, model, inputs, costs, folder)
        if row.verdict not in ("right", "refused"):
            break
    return _measured(row, model)


def _measured(row: Row, model: Any) -> Row:
    """The row, with what `compute_loss_func` finds out about the model before any batch."""
    import torch

    from costbank.trainers.label_shift import measure_shift, shifts_labels

    row = replace(row, measured=measure_shift(model) is not None)
    known = shifts_labels(model, device=torch.device("cpu"))
    if row.verdict in ("right", "refused") and row.shift not in (None, known):
        return replace(row, verdict="wrong", detail=f"a function for the Trainer takes its labels as shifted: {known}")
    return row


def _costs(width: int) -> Any:
    import torch

    from costbank.loss import DenseCosts

    rows = torch.randn(width, 8, generator=torch.Generator().manual_seed(2))
    return DenseCosts(torch.nn.functional.normalize(rows, dim=-1))


def _last_layer(model: Any, head: Any, width: int) -> Any:
    """The layer that makes the logits: the one that the model names, else the last linear one of that width."""
    import torch

    if isinstance(head, torch.nn.Linear):
        return head
    wide = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == width]
    return wide[-1] if wide else head


def _enlarge(model: Any, head: Any, inputs: dict[str, Any]) -> None:
    """Make the head so large that its largest output is about 100."""
    import torch

    sizes: list[float] = []
    handle = head.register_forward_hook(lambda _m, _i, output: sizes.append(float(output.abs().max())))
    with torch.no_grad():
        logits = model(**inputs)["logits"]
        for parameter in head.parameters():
            # If the head is not called, the model still uses its weight.
            parameter.mul_(_LARGE / max(sizes, default=float(logits.abs().max())))
    handle.remove()


def _compare(row: Row, model: Any, inputs: dict[str, Any], costs: Any, folder: str) -> Row:
    """The row, updated by a comparison at one size of logits."""
    import torch

    from costbank.errors import CostbankError
    from costbank.loss import EMOLoss, LinearEMOLoss

    ours = {"mixing": "fixed", "weight": 1.0}
    outputs = model(**inputs)
    row = replace(row, largest=max(row.largest, float(outputs["logits"].detach().abs().max())))
    own = None
    if isinstance(outputs.get("loss"), torch.Tensor):
        own = _step(model, lambda: model(**inputs)["loss"])
        again = _step(model, lambda: model(**inputs)["loss"])
        if max(_differences(own, again)) > _VALUE:
            return replace(row, verdict="random", detail="its own loss of one batch differs from call to call")
    try:
        if own is not None:
            entropy = _trained(model, inputs, EMOLoss(None, objective="ce"), folder)
            value, gradient = _differences(entropy[0], own)
            row = replace(
                row, own_value=max(value, row.own_value or 0), own_gradient=max(gradient, row.own_gradient or 0)
            )
            if value > _VALUE or gradient > _GRADIENT:
                return replace(
                    row, verdict="wrong", detail=f"cross-entropy is {entropy[0][0]:.6g}, its own {own[0]:.6g}"
                )
        full, probe = _trained(model, inputs, EMOLoss(costs, **ours), folder)
    except CostbankError as error:
        return replace(row, verdict="refused whole", detail=error.message)
    row = replace(row, shift=None if probe._check_loss else probe.shift)
    try:
        linear, probe = _trained(model, inputs, LinearEMOLoss(costs, **ours), folder)
    except CostbankError as error:
        return replace(row, verdict="refused", detail=error.message)
    value, gradient = _differences(linear, full)
    row = replace(row, value=max(value, row.value), gradient=max(gradient, row.gradient), applies=probe.applied)
    if value > _VALUE or gradient > _GRADIENT:
        return replace(row, verdict="wrong", detail=f"the linear form gives {linear[0]:.6g}, full logits {full[0]:.6g}")
    return row


def _trained(model: Any, inputs: dict[str, Any], loss: Any, folder: str) -> Any:
    """Loss and gradients of a batch with a Trainer, and the Trainer's probe of the model."""
    from transformers import Trainer, TrainingArguments

    from costbank.trainers.huggingface import EMOTrainerMixin

    class EMOTrainer(EMOTrainerMixin, Trainer):
        pass

    arguments = TrainingArguments(output_dir=folder, use_cpu=True, report_to=[], disable_tqdm=True)
    trainer = EMOTrainer(model, arguments, emo=loss)
    return _step(model, lambda: trainer.compute_loss(model, inputs)), trainer._emo_probe


def _step(model: Any, loss_of: Any) -> tuple[float, dict[str, Any]]:
    import torch

    torch.manual_seed(3)
    model.zero_grad()
    loss = loss_of()
    loss.backward()
    named = model.named_parameters()
    gradients = {name: p.grad.detach().double().clone() for name, p in named if p.grad is not None}
    model.zero_grad()
    return float(loss.detach()), gradients


def _differences(one: tuple[float, dict[str, Any]], other: tuple[float, dict[str, Any]]) -> tuple[float, float]:
    """The difference of two steps' losses, and the largest difference of a parameter's gradients."""
    import torch

    whole = torch.stack([gradient.norm() for gradient in other[1].values()]).norm()
    largest = 0.0
    for name in {*one[1], *other[1]}:
        a, b = one[1].get(name), other[1].get(name)
        missing = a if b is None else b
        assert missing is not None
        a, b = torch.zeros_like(missing) if a is None else a, torch.zeros_like(missing) if b is None else b
        largest = max(largest, float((a - b).norm() / (b.norm() + 1e-3 * whole).clamp_min(1e-30)))
    return abs(one[0] - other[0]) / max(1.0, abs(other[0])), largest


def apart(name: str, folder: str) -> Row:
    """Run `examine` in its own process, with bounded time and memory."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY_BYTES, used + _MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
        try:
            row = examine(name, folder)
        except BaseException as error:
            row = Row(name, "wrong", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        os.write(write, json.dumps(asdict(row)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return Row(**json.loads(answer)) if answer else Row(name, "ended", "out of time or memory")


def _prepare() -> None:
    """Import and compute what all processes need. Only one thread computes, because threads do not survive a fork."""
    import torch
    import torch._dynamo  # models load it at their first call
    import transformers

    for name in ("Trainer", "TrainingArguments"):
        getattr(transformers, name)  # loads them
    from costbank.trainers.huggingface import EMOTrainerMixin  # noqa: F401

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    model = build(transformers.LlamaForCausalLM)
    with torch.no_grad():
        model(**inputs_for(model, VOCAB))


def _rows(names: list[str]) -> Iterator[Row]:
    _prepare()
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            yield apart(name, folder)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args(arguments)
    if options.table is not None:
        from tests.sweep.table import table

        print(table([Row(**json.loads(line)) for line in options.table.read_text().splitlines()]))
        return
    for row in _rows(options.names or language_models()):
        print(f"{row.name}: {row.verdict}: {row.detail or f'{row.value:.1e} {row.gradient:.1e}'}", flush=True)
        if options.rows is not None:
            with options.rows.open("a") as file:
                file.write(json.dumps(asdict(row)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
