"""The settings of the source `transfer`."""

from typing import Annotated, Literal

from pydantic import Field

from costbank.settings import BuildConfig, Execution, Reference, SettingsModel

__all__ = ["TransferBuild", "TransferConfig"]


class TransferConfig(SettingsModel):
    """A bank of one tokenizer for another."""

    donor: Annotated[str | None, Execution, Reference] = Field(
        default=None, description="the bank to take vectors from"
    )
    method: Literal["segmentation", "omp"] = Field(
        default="segmentation",
        description="a new token's vector: the mean over its pieces in the donor's vocabulary, or orthogonal matching "
        "pursuit (`omp`): the sparse sum of shared tokens that it is in a space that knows all tokens",
    )
    guide: Annotated[str | None, Execution, Reference] = Field(
        default=None, description="for `omp`, a bank of the new tokenizer; not given: its spelling vectors"
    )
    atoms: int = Field(default=8, ge=1, le=256, description="for `omp`, shared tokens in a sum, at most")


class TransferBuild(BuildConfig):
    """A bank of another tokenizer's, carried over."""

    source: Literal["transfer"] = "transfer"  # pyright: ignore[reportIncompatibleVariableOverride] -- frozen
    transfer: TransferConfig = Field(default_factory=TransferConfig)

    def without_effect(self) -> set[str]:
        return super().without_effect() | (set() if self.transfer.method == "omp" else {"transfer.atoms"})
