"""The settings of the source `lm-head`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from costbank.settings import BuildConfig, Execution, SettingsModel

__all__ = ["LMHeadBuild", "LMHeadConfig"]


class LMHeadConfig(SettingsModel):
    """Which model's head."""

    model: Annotated[Path | None, Execution] = Field(
        default=None, description="model folder, or a file of weights: safetensors, PyTorch's, GGUF"
    )
    tensor: Annotated[str | None, Execution] = Field(
        default=None, description="the tensor's name; not given: the LM head, else the embedding"
    )
    accept_other_tokenizer: Annotated[bool, Execution] = Field(
        default=False, description="build for a tokenizer that is not the model's own"
    )
    keep_placeholders: bool = Field(
        default=False,
        description="placeholders such as `<unused7>` keep their rows, for a model that was trained on them",
    )


class LMHeadBuild(BuildConfig):
    """A bank of a model's head."""

    source: Literal["lm-head"] = "lm-head"  # pyright: ignore[reportIncompatibleVariableOverride] -- frozen
    lm_head: LMHeadConfig = Field(default_factory=LMHeadConfig)

    @property
    def named_after(self) -> Path | None:
        return self.lm_head.model

    def without_effect(self) -> set[str]:
        return super().without_effect() | (set() if self.lm_head.keep_placeholders else {"lm_head.keep_placeholders"})
