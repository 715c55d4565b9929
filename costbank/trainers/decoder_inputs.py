"""Make the decoder inputs that a model would make from labels, because the model does not get the labels."""

import inspect
import sys
import traceback
import weakref
from typing import Any

from torch import Tensor

from costbank.errors import UsageError
from costbank.trainers.adapters import unwrap_peft

__all__ = ["DecoderInputCheck", "with_decoder_inputs"]

_DECODER_INPUTS = ("decoder_input_ids", "decoder_inputs_embeds")
_USE_COLLATOR = "use a data collator that makes them: DataCollatorForSeq2Seq(tokenizer, model=model)"


class DecoderInputCheck:
    """Checks that an encoder-decoder is called with decoder inputs when a Trainer has taken out its labels.

    Without decoder inputs and labels, BART and similar models feed the source to the decoder and learn to copy it. The
    check is a forward hook, which is installed while a Trainer calls the model. It removes itself at the second call
    that is not followed by `check`.
    """

    def __init__(self, model: Any) -> None:
        """Make a check for a model. A model that is not an encoder-decoder gets no hook."""
        model = unwrap_peft(model)
        self._name = type(model).__name__
        is_encoder_decoder = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
        # The model has a reference to its hook, so the hook must not have one to the model.
        self._model = weakref.ref(model) if is_encoder_decoder else lambda: None
        self._handle: Any = None
        self._missing = False
        self._unchecked_calls = 0

    def install(self) -> None:
        """Put the hook on the model, until `remove`."""
        model, self._unchecked_calls = self._model(), 0
        if model is not None and self._handle is None:
            self._handle = model.register_forward_pre_hook(self._inspect_call, with_kwargs=True)

    def check(self) -> None:
        """Check the last call.

        Raises:
            UsageError: the decoder got no inputs.
        """
        missing, self._missing, self._unchecked_calls = self._missing, False, 0
        if missing:
            raise UsageError(
                f"the batch has no decoder_input_ids, and a Trainer with compute_loss_func calls {self._name} without "
                "the labels that it makes them from",
                _USE_COLLATOR + "; or use the EMOTrainerMixin, which makes them",
            )

    def remove(self) -> None:
        """Take the hook off the model."""
        self._missing = False
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def __getstate__(self) -> dict[str, Any]:
        """For a model that is saved with its hook: after loading, the hook checks nothing and removes itself."""
        return {**self.__dict__, "_model": None, "_missing": False, "_unchecked_calls": 1}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _model=lambda: None)

    def _inspect_call(self, _module: Any, _arguments: Any, named: dict[str, Any]) -> None:
        self._unchecked_calls += 1
        if self._unchecked_calls > 1:
            # The Trainer is not the caller: its training was interrupted, for example.
            self.remove()
            return
        self._missing = all(named.get(name) is None for name in (*_DECODER_INPUTS, "labels"))
        if self._missing and _in_training_step():
            # Checked at once, because T5 would raise a less helpful error before the loss is called.
            self.check()


def _in_training_step() -> bool:
    """Whether the call comes from a Trainer's `training_step`.

    The call stack is the only evidence: no callback runs when a step is interrupted, and after that a user may call the
    model without decoder inputs on purpose.
    """
    return any(frame.f_code.co_name == "training_step" for frame, _ in traceback.walk_stack(inspect.currentframe()))


def with_decoder_inputs(model: Any, inputs: dict[str, Any], labels: Tensor) -> dict[str, Any]:
    """Add `decoder_input_ids` to the inputs of an encoder-decoder, made from the labels as the model makes them.

    For an `EncoderDecoderModel`, the padding mask that the model would make is added too. Inputs that have decoder
    inputs, and the inputs of other models, are returned unchanged.

    Raises:
        UsageError: the model has no function that makes them.
    """
    model = unwrap_peft(model)
    config: Any = getattr(model, "config", None)
    has_decoder_inputs = any(inputs.get(name) is not None for name in _DECODER_INPUTS)
    if has_decoder_inputs or not getattr(config, "is_encoder_decoder", False):
        return inputs
    if hasattr(model, "prepare_decoder_input_ids_from_labels"):
        decoder_ids = model.prepare_decoder_input_ids_from_labels(labels=labels)
    elif hasattr(model, "_shift_right"):
        decoder_ids = model._shift_right(labels)
    else:
        decoder_ids = _shift_by_module_function(model, config, labels)
    with_ids = {**inputs, "decoder_input_ids": decoder_ids}
    masks_padding = any(kind.__name__ == "EncoderDecoderModel" for kind in type(model).__mro__)
    if masks_padding and inputs.get("decoder_attention_mask") is None:
        with_ids["decoder_attention_mask"] = (decoder_ids != config.pad_token_id).to(decoder_ids.dtype)
    return with_ids


def _shift_by_module_function(model: Any, config: Any, labels: Tensor) -> Tensor:
    """Shift labels with `shift_tokens_right` of the model's module, which may take the padding and start ids."""
    function = getattr(sys.modules.get(type(model).__module__), "shift_tokens_right", None)
    if function is None:
        raise UsageError(
            f"the batch has no decoder_input_ids, and {type(model).__name__} has no function that makes them from "
            "labels",
            _USE_COLLATOR,
        )
    ids = {"pad_token_id": config.pad_token_id, "decoder_start_token_id": config.decoder_start_token_id}
    return function(labels, **{name: ids[name] for name in inspect.signature(function).parameters if name in ids})
