"""Whether a model shifts labels in its own loss, so that position i predicts label i + 1."""

from typing import Any

import torch

from costbank.trainers.adapters import unwrap_peft, virtual_token_count
from costbank.trainers.heads import output_module
from costbank.trainers.labeled_batch import LabeledBatch
from costbank.trainers.own_loss_call import call_with_labels, compare_losses
from costbank.trainers.reduction import IGNORE_INDEX

__all__ = ["measure_shift", "shifts_labels"]


def shifts_labels(model: Any, device: Any = None) -> bool:
    """Whether a model shifts labels in its own loss.

    Args:
        model: a model, with or without PEFT's wrapper.
        device: if all parameters are on this device, the shift is measured. Otherwise, or if the measurement shows
            nothing, the shift follows from the kind of model: an encoder-decoder and a masked language model do not
            shift labels.
    """
    if device is not None and all(parameter.device.type == device.type for parameter in model.parameters()):
        measured = measure_shift(model)
        if measured is not None:
            return measured
    model = unwrap_peft(model)
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return False
    return getattr(model, "loss_type", None) != "ForMaskedLM"


def measure_shift(model: Any) -> bool | None:
    """Measure, without a batch, whether a model shifts labels in its own loss.

    The model is called once, without gradient, with eight arbitrary tokens. Random numbers replace the output of its
    head, so the result does not depend on its weights.

    Args:
        model: a model, with or without PEFT's wrapper.

    Returns:
        None if that shows nothing: the model takes something other than token ids, or its loss is not just
        cross-entropy.
    """
    base, virtual = unwrap_peft(model), virtual_token_count(model)
    try:
        embedding = base.get_input_embeddings()
    except (AttributeError, NotImplementedError):  # the model has no input embedding, or several
        return None
    rows = getattr(getattr(embedding, "weight", None), "shape", [0])[0]
    head = output_module(base)
    width = min(rows, getattr(getattr(head, "weight", None), "shape", [rows])[0])
    if width < 2 or getattr(base, "main_input_name", None) != "input_ids" or head is None:
        return None
    device = next(base.parameters()).device
    ids = torch.randint(width, (1, 8), generator=torch.Generator().manual_seed(0)).to(device)
    batch = LabeledBatch({"input_ids": ids}, ids)
    call = call_with_labels(model, base, batch, virtual, IGNORE_INDEX, random_logits=True, quiet=True)
    losses = None if call is None else compare_losses(base, call, IGNORE_INDEX)
    matching = [] if losses is None else losses.matching_shifts()
    return matching[0] if len(matching) == 1 else None
