"""The settings of the source `lm-head`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from costbank.settings import BuildConfig, Execution, SettingsModel

__all__ = ["LMHeadBuild", "LMHeadConfig"]


class LMHeadConfig(SettingsModel):
    """The model and its head."""

    model: Annotated[Path | None, Execution] = Field(
        default=None,
        description="the model folder, a weights file (safetensors, PyTorch or GGUF), or `org/name[@revision]` in the "
        "local cache of Hugging Face",
    )
    tensor: Annotated[str | None, Execution] = Field(
        default=None, description="the name of the tensor; not given: the LM head, else the embedding"
    )
    accept_other_tokenizer: Annotated[bool, Execution] = Field(
        default=False, description="build even if the tokenizer is not the model's own"
    )
    keep_placeholders: bool = Field(
        default=False,
        description="keep the rows of placeholders such as `<unused7>`, for a model that was trained on them",
    )


class LMHeadBuild(BuildConfig):
    """The config of a bank of a model's head."""

    source: Literal["lm-head"] = "lm-head"  # pyright: ignore[reportIncompatibleVariableOverride] -- frozen
    lm_head: LMHeadConfig = Field(default_factory=LMHeadConfig)

    @property
    def named_after(self) -> Path | None:
        return self.lm_head.model

    def without_effect(self) -> set[str]:
        return super().without_effect() | (set() if self.lm_head.keep_placeholders else {"lm_head.keep_placeholders"})
