"""The callback that puts a loss into a model, and checks that training really uses it."""

from pathlib import Path
from typing import Any

from costbank.errors import require

# Before the imports that need it: if it is missing, the error names the extra to install.
require("transformers", "trainers")

from torch import Tensor
from transformers import TrainerState

from costbank.bank import Bank
from costbank.errors import UsageError
from costbank.loss import EMOLoss, LinearEMOLoss
from costbank.loss.arguments import check_costs
from costbank.trainers.adapters import check_adapters, unwrap_peft, virtual_token_count
from costbank.trainers.fused_losses import check_uses_loss_function
from costbank.trainers.in_force import announce, bank_of
from costbank.trainers.loss_function import PinCallback
from costbank.trainers.model_loss import EMOForCausalLMLoss, emo_loss_function
from costbank.trainers.reduction import check_label_smoothing
from costbank.trainers.token_weights import refuse_token_weights
from costbank.trainers.tokenizer import check_tokenizer, has_tokenizer_json

__all__ = ["EMOLossCallback"]


class EMOLossCallback(PinCallback):
    """A callback for any Trainer that sets `model.loss_function` when training begins: `EMOLossCallback(bank)`.

    It refuses to train, before the first step, if

    - the tokenizer is not the bank's, or the head is narrower than the bank;
    - the model does not use `loss_function`, or a fused loss (Liger, cut cross-entropy, unsloth) has replaced it;
    - in the first step no gradient came through this loss, because something else computed the loss.

    The last check is made before each optimizer step, and costs nothing. Checkpoints are pinned to the costs and
    options. The step for a weight that follows a schedule is the Trainer's.

    Args:
        loss: a bank, also by its name, path or URL, or a loss, or `emo_loss_function(bank, …)`.
        place: what uses the loss, for the line in the log.
        **options: single options by name, or `preset=`; only with a bank.

    Raises:
        CostbankError: the bank of a name, path or URL cannot be opened; see `open_bank`.
        UsageError: see `emo_loss_function`. When training begins: see above; also label smoothing of the Trainer, an
            adapter with a loss of its own, prompt tuning, a dataset column `token_weights`, or a resumed checkpoint
            with other costs or options.
        TokenizerError: when training begins, the tokenizer is not the bank's.
        ShapeError: when training begins, the head has another width.
    """

    def __init__(
        self,
        loss: EMOForCausalLMLoss | EMOLoss | LinearEMOLoss | Bank | str | Path,
        *,
        place: str = "the Trainer",
        **options: Any,
    ) -> None:
        self.function = loss if isinstance(loss, EMOForCausalLMLoss) else emo_loss_function(loss, **options)
        if isinstance(loss, EMOForCausalLMLoss) and options:
            raise UsageError(
                f"the options {', '.join(options)} were given with a finished function",
                "give them to emo_loss_function",
            )
        super().__init__(self.function.loss)
        self.place = place

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:
        super().on_train_begin(args, state, control, **rest)
        check_label_smoothing(args)
        refuse_token_weights(rest.get("train_dataloader"))
        self.install(rest["model"], rest.get("processing_class"))
        self.function.step = state.global_step
        self.function.take_gradient_arrived()
        if state.is_world_process_zero:
            announce(self.loss, self.place)

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:
        self.function.step = state.global_step

    def on_pre_optimizer_step(self, args: Any, state: TrainerState, control: Any, **rest: Any) -> None:
        """Check that the gradients of this step came through the loss.

        Raises:
            UsageError: they did not.
        """
        if not self.function.take_gradient_arrived():
            raise UsageError(
                f"step {state.global_step + 1} was trained with another loss than that of {bank_of(self.loss)}: no "
                "gradient came through model.loss_function",
                "turn off what replaces the model's loss (compute_loss_func, label smoothing, DFT, a fused "
                "cross-entropy, a compute_loss of your own), or give the trainer compute_loss_func(bank)",
            )

    def install(self, model: Any, tokenizer: Any = None) -> None:
        """Check a model and its tokenizer, and set the model's `loss_function`."""
        check_adapters(model)
        if virtual_token_count(model):
            raise UsageError(
                "prompt tuning lengthens the rows of logits, and this function does not know by how much",
                "use a Trainer with EMOTrainerMixin",
            )
        bank = self.function.bank
        if bank is not None and tokenizer is not None and has_tokenizer_json(tokenizer):
            check_tokenizer(bank, tokenizer)
        check_uses_loss_function(model)
        base = unwrap_peft(model)
        self._check_width(base)
        base.loss_function = self.function

    def _check_width(self, model: Any) -> None:
        """Check the width of the costs: a head has at least as many rows as there are logits."""
        head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        weight = getattr(head, "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim != 2 or not weight.is_floating_point():
            return  # sharded or quantized: the first call checks the logits
        self.loss.fit(len(weight))
        check_costs(self.loss.costs, len(weight), self.loss.options)
