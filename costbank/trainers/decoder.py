"""The inputs of a decoder that a model makes from labels, which a loss of ours takes out before the model sees them."""

import inspect
import sys
from typing import Any

from torch import Tensor

from costbank.errors import UsageError
from costbank.trainers.adapters import base_of

__all__ = ["with_decoder_inputs"]

_GIVEN = ("decoder_input_ids", "decoder_inputs_embeds")


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
            "give a data collator that makes them: DataCollatorForSeq2Seq(tokenizer, model=model)",
        )
    ids = {"pad_token_id": config.pad_token_id, "decoder_start_token_id": config.decoder_start_token_id}
    return function(labels, **{name: ids[name] for name in inspect.signature(function).parameters if name in ids})
