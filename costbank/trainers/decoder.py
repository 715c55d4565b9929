"""The inputs of a decoder that a model makes from labels, which a loss of ours takes out before the model sees them."""

import inspect
import sys
import weakref
from typing import Any

from torch import Tensor

from costbank.errors import UsageError
from costbank.trainers.adapters import base_of

__all__ = ["DecoderInputs", "with_decoder_inputs"]

_GIVEN = ("decoder_input_ids", "decoder_inputs_embeds")
_COLLATOR = "give a data collator that makes them: DataCollatorForSeq2Seq(tokenizer, model=model)"


class DecoderInputs:
    """Watches whether an encoder-decoder gets inputs of its decoder, where labels are taken out before it is called.

    Without them and without labels, BART and its kin feed the decoder the source, and learn to copy it. The hook that
    watches is there while a Trainer calls the model: it leaves by itself at the second call that nothing has checked.
    """

    def __init__(self, model: Any) -> None:
        """Make one for a model; one that is not an encoder-decoder is not watched."""
        model = base_of(model)
        self._name = type(model).__name__
        encodes = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
        # The model holds its hook, and this holds no model.
        self._model = weakref.ref(model) if encodes else lambda: None
        self._handle: Any = None
        self._missing = False
        self._unchecked = 0

    def watch(self) -> None:
        """Watch the model, until `remove`."""
        model, self._unchecked = self._model(), 0
        if model is not None and self._handle is None:
            self._handle = model.register_forward_pre_hook(self._look, with_kwargs=True)

    def check(self) -> None:
        """Check the last call.

        Raises:
            UsageError: the decoder got no inputs.
        """
        missing, self._missing, self._unchecked = self._missing, False, 0
        if missing:
            raise UsageError(
                f"the batch has no decoder_input_ids, and a Trainer with compute_loss_func calls {self._name} without "
                "the labels that it would make them from",
                _COLLATOR + "; or take the EMOTrainerMixin, which makes them",
            )

    def remove(self) -> None:
        """Watch no longer."""
        self._missing = False
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def __getstate__(self) -> dict[str, Any]:
        """Of a model that is saved with its hook, which watches nothing where it is loaded, and leaves soon."""
        return {**self.__dict__, "_model": None, "_missing": False, "_unchecked": 1}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _model=lambda: None)

    def _look(self, _module: Any, _arguments: Any, named: dict[str, Any]) -> None:
        self._unchecked += 1
        if self._unchecked > 1:
            # Someone else's calls, as after an interrupted training.
            self.remove()
            return
        self._missing = all(named.get(name) is None for name in (*_GIVEN, "labels"))
        if self._missing and _in_training_step():
            # T5 would raise an error of its own, which says less.
            self.check()


def _in_training_step() -> bool:
    """Whether a Trainer's step is what calls; after an interrupted one the same call may be meant."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "training_step":
            return True
        frame = frame.f_back
    return False


def with_decoder_inputs(model: Any, inputs: dict[str, Any], labels: Tensor) -> dict[str, Any]:
    """The inputs of an encoder-decoder with `decoder_input_ids`, made from the labels as the model makes them.

    `EncoderDecoderModel` makes a mask of padding with them, and so does this.

    Inputs that have them, and those of other models, are returned as they are.

    Raises:
        UsageError: the model has no such function.
    """
    model = base_of(model)
    config: Any = getattr(model, "config", None)
    if not getattr(config, "is_encoder_decoder", False) or any(inputs.get(name) is not None for name in _GIVEN):
        return inputs
    if hasattr(model, "prepare_decoder_input_ids_from_labels"):
        made = model.prepare_decoder_input_ids_from_labels(labels=labels)
    elif hasattr(model, "_shift_right"):
        made = model._shift_right(labels)
    else:
        made = _shifted_by_module(model, config, labels)
    mask = inputs.get("decoder_attention_mask")
    if mask is None and any(kind.__name__ == "EncoderDecoderModel" for kind in type(model).__mro__):
        return {
            **inputs, "decoder_input_ids": made, "decoder_attention_mask": (made != config.pad_token_id).to(made.dtype)
        }  # fmt: skip
    return {**inputs, "decoder_input_ids": made}


def _shifted_by_module(model: Any, config: Any, labels: Tensor) -> Tensor:
    """By the function of the model's own module, which takes ids of padding and start where it needs them."""
    function = getattr(sys.modules.get(type(model).__module__), "shift_tokens_right", None)
    if function is None:
        raise UsageError(
            f"the batch has no decoder_input_ids, and {type(model).__name__} has no function that makes them from "
            "labels",
            _COLLATOR,
        )
    ids = {"pad_token_id": config.pad_token_id, "decoder_start_token_id": config.decoder_start_token_id}
    return function(labels, **{name: ids[name] for name in inspect.signature(function).parameters if name in ids})
