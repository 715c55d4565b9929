"""Stand-ins for frameworks that are not installed, with the interface of the version that is named with each.

A stand-in has the signatures that costbank's classes are called with or call, and nothing else. With the framework
itself in the environment, the same tests use it instead.
"""

import importlib.util
import sys
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import nn

OURS = {
    "axolotl": "costbank.trainers.axolotl",
    "swift": "costbank.trainers.ms_swift",
    "torchtitan": "costbank.trainers.torchtitan",
    "nemo_automodel": "costbank.trainers.nemo_automodel",
}


def is_installed(name: str) -> bool:
    return (name not in sys.modules and importlib.util.find_spec(name) is not None) or _is_real(name)


def _is_real(name: str) -> bool:
    return name in sys.modules and not hasattr(sys.modules[name], "stand_in_for")


@contextmanager
def framework(name: str) -> Iterator[bool]:
    """Make a framework importable; yields whether it is the installed one."""
    if is_installed(name):
        yield True
        return
    modules = STAND_INS[name]()
    try:
        sys.modules.update(modules)
        yield False
    finally:
        for module in (*modules, OURS[name]):
            sys.modules.pop(module, None)
        package = sys.modules.get("costbank.trainers")
        if package is not None and hasattr(package, OURS[name].rsplit(".", 1)[1]):
            delattr(package, OURS[name].rsplit(".", 1)[1])


def _module(name: str, version: str = "", **members: Any) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(members, __path__=[])
    if version:
        module.__dict__["stand_in_for"] = version
    return module


def axolotl() -> dict[str, ModuleType]:
    """axolotl 0.19.0: `integrations/base.py`."""

    class BasePlugin:
        def __init__(self) -> None: ...
        def register(self, cfg: dict) -> None: ...
        def get_input_args(self) -> str | None: ...
        def get_trainer_cls(self, cfg: Any) -> type | None: ...
        def post_trainer_create(self, cfg: Any, trainer: Any) -> None: ...

    return {
        "axolotl": _module("axolotl", "0.19.0"),
        "axolotl.integrations": _module("axolotl.integrations"),
        "axolotl.integrations.base": _module("axolotl.integrations.base", BasePlugin=BasePlugin),
    }


def swift() -> dict[str, ModuleType]:
    """ms-swift 4.6.0: `swift/loss/base.py` and `swift/loss/mapping.py`."""

    class BaseLoss(ABC):
        def __init__(self, args: Any, trainer: Any) -> None:
            self.args = args
            self.trainer = trainer
            self.is_megatron = "BaseMegatronTrainer" in [cls.__name__ for cls in type(trainer).__mro__]

        @abstractmethod
        def __call__(
            self, outputs: Any, labels: Any, *, num_items_in_batch: Any = None, loss_scale: Any = None, **kwargs: Any
        ) -> torch.Tensor: ...

    return {
        "swift": _module("swift", "4.6.0"),
        "swift.loss": _module("swift.loss", BaseLoss=BaseLoss, loss_map={}),
    }


def nemo_automodel() -> dict[str, ModuleType]:
    """NeMo Automodel 0.7.0: `components/loss/masked_ce.py`."""

    class MaskedCrossEntropy(nn.Module):
        def __init__(self, fp32_upcast: bool = True, ignore_index: int = -100, reduction: str = "sum") -> None:
            super().__init__()
            self.fp32_upcast, self.ignore_index, self.reduction = fp32_upcast, ignore_index, reduction

    names = ["nemo_automodel", "nemo_automodel.components", "nemo_automodel.components.loss"]
    modules = {name: _module(name, "0.7.0" if name == "nemo_automodel" else "") for name in names}
    masked = "nemo_automodel.components.loss.masked_ce"
    return {**modules, masked: _module(masked, MaskedCrossEntropy=MaskedCrossEntropy)}


def torchtitan() -> dict[str, ModuleType]:
    """torchtitan 0.3.0: `components/loss.py`, `components/tokenizer.py`, and spmd_types 0.2.3."""

    class Configurable:
        @dataclass(kw_only=True, slots=True)
        class Config:
            pass

    class BaseLoss(ABC, Configurable):
        @dataclass(kw_only=True, slots=True)
        class Config(Configurable.Config):
            pass

        @abstractmethod
        def __init__(self, config: Any, *, compile_config: Any = None) -> None: ...

        def __call__(
            self, pred: Any, labels: Any, global_valid_tokens: Any = None, **kwargs: Any
        ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            raise NotImplementedError

    class CrossEntropyLoss(BaseLoss):
        @dataclass(kw_only=True, slots=True)
        class Config(BaseLoss.Config):
            global_vocab_size: int | None = None

    class ChunkedLossWrapper(BaseLoss):
        @dataclass(kw_only=True, slots=True)
        class Config(BaseLoss.Config):
            num_chunks: int = 8
            loss_fn: Any = field(default_factory=CrossEntropyLoss.Config)

    class MSELoss(BaseLoss):
        @dataclass(kw_only=True, slots=True)
        class Config(BaseLoss.Config):
            pass

    class HuggingFaceTokenizer(Configurable):
        @dataclass(kw_only=True, slots=True)
        class Config(Configurable.Config):
            pass

        def __init__(self, config: Any = None, *, tokenizer_path: str) -> None:
            from tokenizers import Tokenizer

            self.tokenizer = Tokenizer.from_file(f"{tokenizer_path}/tokenizer.json")

    @contextmanager
    def no_typecheck() -> Iterator[None]:
        yield

    sizes: defaultdict[str, int] = defaultdict(lambda: 1)
    spmd = _module("spmd_types", "0.2.3", is_type_checking=lambda: False, no_typecheck=no_typecheck)
    names = ["torchtitan", "torchtitan.components", "torchtitan.distributed"]
    return {
        "spmd_types": spmd,
        **{name: _module(name, "0.3.0" if name == "torchtitan" else "") for name in names},
        "torchtitan.components.loss": _module(
            "torchtitan.components.loss", BaseLoss=BaseLoss, ChunkedLossWrapper=ChunkedLossWrapper,
            CrossEntropyLoss=CrossEntropyLoss, MSELoss=MSELoss,
        ),
        "torchtitan.components.tokenizer": _module(
            "torchtitan.components.tokenizer", HuggingFaceTokenizer=HuggingFaceTokenizer
        ),
        "torchtitan.distributed.spmd_types": _module(
            "torchtitan.distributed.spmd_types", current_spmd_mesh=lambda: None, spmd_mesh_size=sizes.__getitem__
        ),
    }  # fmt: skip


STAND_INS = {"axolotl": axolotl, "swift": swift, "nemo_automodel": nemo_automodel, "torchtitan": torchtitan}
