"""Split a Trainer's batch into labels and inputs."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from costbank.trainers.decoder_inputs import with_decoder_inputs
from costbank.trainers.token_weights import TOKEN_WEIGHTS

__all__ = ["LabeledBatch", "split_labels"]


@dataclass(frozen=True)
class LabeledBatch:
    """A Trainer's batch, split into labels and inputs.

    Attributes:
        inputs: the model's inputs, without labels.
        labels: [batch, length].
        shift_labels: labels that are already shifted, if the collator also makes these.
        collated_inputs: the collator's inputs; None unless decoder inputs were added to `inputs`.
    """

    inputs: dict[str, Any]
    labels: Tensor
    shift_labels: Tensor | None = None
    collated_inputs: dict[str, Any] | None = None

    @property
    def targets(self) -> Tensor:
        """The labels for the loss."""
        return self.labels if self.shift_labels is None else self.shift_labels

    def target_weights(self, weights: Tensor | None) -> Tensor | None:
        """Token weights for `targets`, from weights for `labels`."""
        if weights is None or self.shift_labels is None:
            return weights
        return nn.functional.pad(weights[..., 1:], (0, 1))


def split_labels(model: Any, inputs: dict[str, Any]) -> LabeledBatch:
    """Split a batch into labels and inputs, and add the decoder inputs that the model would make from labels."""
    labels = inputs["labels"]
    collated = {name: value for name, value in inputs.items() if name not in ("labels", "shift_labels", TOKEN_WEIGHTS)}
    complete = with_decoder_inputs(model, collated, labels)
    return LabeledBatch(complete, labels, inputs.get("shift_labels"), None if complete is collated else collated)
