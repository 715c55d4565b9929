"""The inputs of a decoder that a model makes from labels, which a loss of ours takes out before the model sees them."""

import inspect
import sys
from typing import Any

from torch import Tensor

from costbank.errors import UsageError
from costbank.trainers.adapters import base_of

__all__ = ["DecoderInputs", "with_decoder_inputs"]

_GIVEN = ("decoder_input_ids", "decoder_inputs_embeds")
_COLLATOR = "give a data collator that makes them: DataCollatorForSeq2Seq(tokenizer, model=model)"


class DecoderInputs:
    """Watches whether an encoder-decoder gets inputs of its decoder, where labels are taken out before it is called.

    Without them and without labels, BART and its kin feed the decoder the source, and learn to copy it.

    Attributes:
        training: whether a Trainer calls the model to train it: a call without them is refused at once.
    """

    def __init__(self, model: Any) -> None:
        """Watch a model, if it is an encoder-decoder."""
        model = base_of(model)
        self.training = self._missing = False
        self._name, self._handle = type(model).__name__, None
        if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
            self._handle = model.register_forward_pre_hook(self._look, with_kwargs=True)

    def check(self) -> None:
        """Check the last call.

        Raises:
            UsageError: the decoder got no inputs.
        """
        if self._missing:
            raise UsageError(
                f"the batch has no decoder_input_ids, and a Trainer with compute_loss_func calls {self._name} without "
                "the labels that it would make them of",
                _COLLATOR + "; or take the EMOTrainerMixin, which makes them",
            )

    def remove(self) -> None:
        """Watch no longer."""
        if self._handle is not None:
            self._handle.remove()

    def _look(self, _module: Any, _arguments: Any, named: dict[str, Any]) -> None:
        self._missing = all(named.get(name) is None for name in (*_GIVEN, "labels"))
        if self.training:
            self.check()


def with_decoder_inputs(model: Any, inputs: dict[str, Any], labels: Tensor) -> dict[str, Any]:
    """The inputs of an encoder-decoder with `decoder_input_ids`, made from the labels as the model makes them.

    Inputs that have them, and those of other models, are returned as they are.

    Raises:
        UsageError: the model has no such function.
    """
    model = base_of(model)
    config = getattr(model, "config", None)
    if not getattr(config, "is_encoder_decoder", False) or any(inputs.get(name) is not None for name in _GIVEN):
        return inputs
    if hasattr(model, "prepare_decoder_input_ids_from_labels"):
        made = model.prepare_decoder_input_ids_from_labels(labels=labels)
    elif hasattr(model, "_shift_right"):
        made = model._shift_right(labels)
    else:
        made = _shifted_by_module(model, config, labels)
    return {**inputs, "decoder_input_ids": made}


def _shifted_by_module(model: Any, config: Any, labels: Tensor) -> Tensor:
    """By the function of the model's own module, which takes ids of padding and start where it needs them."""
    function = getattr(sys.modules.get(type(model).__module__), "shift_tokens_right", None)
    if function is None:
        raise UsageError(
            f"the batch has no decoder_input_ids, and {type(model).__name__} has no function that makes them of labels",
            _COLLATOR,
        )
    ids = {"pad_token_id": config.pad_token_id, "decoder_start_token_id": config.decoder_start_token_id}
    return function(labels, **{name: ids[name] for name in inspect.signature(function).parameters if name in ids})
