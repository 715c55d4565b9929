"""The settings of the source `transfer`."""

from typing import Annotated, Literal

from pydantic import Field

from costbank.settings import BuildConfig, Execution, Reference, SettingsModel

__all__ = ["TransferBuild", "TransferConfig"]


class TransferConfig(SettingsModel):
    """The bank to take vectors from, and the method."""

    donor: Annotated[str | None, Execution, Reference] = Field(
        default=None, description="the bank to take vectors from"
    )
    method: Literal["segmentation", "omp"] = Field(
        default="segmentation",
        description="the vector of a new token: the mean of its pieces in the donor's vocabulary (`segmentation`), or "
        "a sparse sum of shared tokens by orthogonal matching pursuit in a space of all tokens (`omp`)",
    )
    guide: Annotated[str | None, Execution, Reference] = Field(
        default=None,
        description="for `omp`, a bank of the new tokenizer that provides this space; not given: spelling vectors "
        "provide it",
    )
    atoms: int = Field(default=8, ge=1, le=256, description="for `omp`, the maximum number of shared tokens in a sum")


class TransferBuild(BuildConfig):
    """The config of a bank transferred from another tokenizer."""

    source: Literal["transfer"] = "transfer"  # pyright: ignore[reportIncompatibleVariableOverride] -- frozen
    transfer: TransferConfig = Field(default_factory=TransferConfig)

    def without_effect(self) -> set[str]:
        return super().without_effect() | (set() if self.transfer.method == "omp" else {"transfer.atoms"})
