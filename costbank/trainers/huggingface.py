"""The losses in Hugging Face's `Trainer`, and in trainers derived from it, such as TRL's `SFTTrainer`.

`compute_loss_func` makes a function for an unchanged Trainer, which uses the model's logits. `EMOTrainerMixin` makes a
Trainer class that never has the logits of all tokens in memory in training, and that logs the parts of the loss.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costbank.errors import require

# Before the imports that need them: if one is missing, the error names the extra to install.
require("torch", "trainers")
require("transformers", "trainers")

import torch
from torch import Tensor, nn

from costbank.bank import Bank
from costbank.errors import UsageError
from costbank.loss import (
    EMOLoss,
    EMOOptions,
    EMOResult,
    LinearEMOLoss,
    emo_loss_with_parts,
    linear_emo_loss_with_parts,
)
from costbank.loss.arguments import check_costs
from costbank.trainers.adapters import check_adapters, unwrap_peft, virtual_token_count
from costbank.trainers.arguments import as_bank, as_loss, bank_if_named
from costbank.trainers.best_metric import check_best_metric
from costbank.trainers.heads import ModelHead, head_rows
from costbank.trainers.labeled_batch import split_labels
from costbank.trainers.logit_transform import LogitTransform
from costbank.trainers.loss_function import PinCallback, compute_loss_func
from costbank.trainers.metrics import LossMetrics, counted_mask, ignore_repeated_rows
from costbank.trainers.model_probe import ModelProbe
from costbank.trainers.reduction import (
    check_ignore_index,
    check_label_smoothing,
    divide_by_items,
    move_loss,
    plain_ce_options,
    trainer_options,
)
from costbank.trainers.sft import TokenCount, is_sft
from costbank.trainers.token_weights import (
    TOKEN_WEIGHTS,
    WeightsCollator,
    check_columns_kept,
    datasets_with_weights,
    weighted_token_count,
)
from costbank.trainers.tokenizer import check_tokenizer, has_tokenizer_json

if TYPE_CHECKING:
    from transformers import Trainer as _Trainer
else:
    _Trainer = object

__all__ = ["EMOTrainerMixin", "compute_loss_func"]

# The first positional arguments of Trainer and of SFTTrainer.
_POSITIONAL = ("model", "args", "data_collator", "train_dataset", "eval_dataset")


@dataclass(frozen=True)
class _ForwardPass:
    """A call of the model.

    Attributes:
        outputs: the model's outputs; in the linear form with the logits of the last position only.
        head, hidden: in the linear form, the head and its input at all positions.
        transform: in the linear form, what the model does to the head's output.
    """

    outputs: Any
    head: ModelHead | None = None
    hidden: Tensor | None = None
    transform: LogitTransform | None = None

    @property
    def length(self) -> int:
        """The number of positions, virtual tokens included."""
        return (self.outputs.logits if self.hidden is None else self.hidden).shape[1]

    @property
    def device(self) -> torch.device:
        """Where the loss is computed."""
        return (self.outputs.logits if self.head is None else self.head.linear.weight).device


class EMOTrainerMixin(_Trainer):
    """`class MyTrainer(EMOTrainerMixin, Trainer)`, or the same with TRL's SFTTrainer: a Trainer with `emo=`.

    With a `LinearEMOLoss` or a bank, a training step reads the head's input with hooks that exist only during that
    call, gives the head only the last position, and multiplies by its weight in blocks of tokens. What the model does
    to its logits is measured before the first batch, and checked while training. With an `EMOLoss`, and in evaluations
    that need predictions, the loss uses the model's own logits. Labels are shifted if the model's own loss shifts them,
    and sums are divided as in the Trainer's own loss. If the model has an auxiliary loss (mixture of experts), it is
    added with the config's coefficient. If prompt tuning puts virtual tokens before the rows, these have no labels, and
    the last of them predicts the first label.

    A dataset column `token_weights`, with a number for each label, multiplies the losses of tokens in training. The
    mean of a step is then the weighted sum divided by the sum of weights. Evaluations count all tokens equally.

    `ce`, `mean_token_accuracy`, and `emd` (for the objectives `emo` and `delta`) or `objective_value` are logged with
    the loss, as means over the tokens since the last line; evaluations log `eval_ce` and so on. `eval_loss` is the
    cross-entropy, as in a run without this loss; `eval_emo_loss` is the mean of this loss over all tokens. Checkpoints
    are pinned to the loss's costs and options.

    Args:
        emo: the loss, or a bank for `LinearEMOLoss(bank)`, also by its name, path or URL. A loss made from a bank is
            fitted to wider logits, as after `model.resize_token_embeddings`; costs that you opened
            (`open_costs(bank, …)`) must be as wide.
        emo_bank: the bank of the loss `emo`, to check the tokenizer against it; see `check_tokenizer`.
        emo_check_loss: compare cross-entropy with the model's own loss of the first batch, and refuse a difference.

    Raises:
        UsageError: `emo` is not a loss, a bank or a text, or arguments contradict each other. In training: the linear
            form cannot use the head, or a checkpoint was trained with other costs or options.
        CostbankError: the bank of a name, path or URL cannot be opened; see `open_bank`.
        TokenizerError: `processing_class` is or has a fast tokenizer that is not the bank's.
    """

    def __init__(
        self,
        *args: Any,
        emo: EMOLoss | LinearEMOLoss | Bank | str | Path,
        emo_bank: Bank | str | Path | None = None,
        emo_check_loss: bool = True,
        **kwargs: Any,
    ) -> None:
        emo = bank_if_named(emo)
        bank = emo if isinstance(emo, Bank) else as_bank(emo_bank, "emo_bank=")
        self.emo = as_loss(emo, "emo=", LinearEMOLoss)
        check_ignore_index(self.emo)
        # A trainer that prepares datasets, such as SFTTrainer, reads the first row itself.
        read = hasattr(self, "_prepare_dataset")
        weighted = datasets_with_weights({**dict(zip(_POSITIONAL, args, strict=False)), **kwargs}, read=read)
        super().__init__(*args, **kwargs)
        self._check_arguments()
        check_columns_kept(weighted, datasets_with_weights(vars(self), read=read) if weighted else [])
        self.data_collator = WeightsCollator(self.data_collator, self.args)
        if bank is not None and has_tokenizer_json(self.processing_class):
            check_tokenizer(bank, self.processing_class)
        # Then the Trainer counts the tokens of all accumulated batches, and leaves the mean over them to this loss.
        self.model_accepts_loss_kwargs = True
        self._emo_probe = ModelProbe(self.model, self.emo.options, check_loss=emo_check_loss)
        self._set_token_count()
        # SFTTrainer logs the entropy of predictions. At another temperature, the loss computes other probabilities.
        self._emo_entropy = is_sft(self) and self.emo.options.temperature == 1.0
        self._emo_metrics = {training: LossMetrics(entropy=self._emo_entropy) for training in (True, False)}
        self._emo_tokens = TokenCount()
        self._emo_loss_only = False
        self.add_callback(PinCallback(self.emo))

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of a batch, as `Trainer.compute_loss` returns it; `inputs` are not changed."""
        if "labels" not in inputs:
            raise UsageError("the batch has no labels", "use a data collator that makes them")
        linear = isinstance(self.emo, LinearEMOLoss) and (model.training or self._emo_loss_only) and not return_outputs
        # If the tokens of a step were counted, its batches were measured before that.
        if num_items_in_batch is None or not self._emo_probe.has_measured(linear=linear):
            self._measure(model, [inputs], linear)
        unwrapped = self.accelerator.unwrap_model(model)
        batch = split_labels(unwrapped, inputs)
        call = self._call_model(model, unwrapped, batch.inputs, linear)
        # Evaluations count all tokens equally, so that runs with other weights, or without any, can be compared.
        labels = batch.targets
        weights = batch.target_weights(inputs.get(TOKEN_WEIGHTS)) if model.training else None
        if labels.shape[1] != call.length:
            padding = (virtual_token_count(unwrapped), 0)
            labels = nn.functional.pad(labels, padding, value=self.emo.options.ignore_index)
            weights = None if weights is None else nn.functional.pad(weights, padding)
        if model.training and is_sft(self):
            self._emo_tokens.add(batch.inputs)
        shift = batch.shift_labels is None and self._emo_probe.shift
        options = trainer_options(self.emo.options, num_items_in_batch, shift)
        if model.training:
            result = self._emo_result(call, labels, options, weights)
            self._emo_metrics[True].add(result, labels, options, weights)
            total = result.loss
        else:
            # Cross-entropy, as in a run without this loss: the value of this loss would look like an improvement.
            total = self._evaluation_ce(call, labels, options)
        loss = divide_by_items(total, num_items_in_batch)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            # Tokens are counted over all processes, and gradients are averaged over them.
            loss = loss * (self.accelerator.num_processes // self.get_tp_size())
        loss = loss + self._auxiliary_loss(call.outputs, num_items_in_batch)
        return (loss, call.outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the means of the loss's parts if `logs` are those of training steps."""
        evaluations = [name.removesuffix("_runtime") for name in logs if name.endswith("_runtime")]
        if "loss" in logs or "train_loss" in logs:
            # Also at the end of training, because the last steps may have no line of their own.
            self._check_logits()
        if "loss" in logs:
            means = self._emo_metrics[True].take(self.accelerator)
            # In training, `loss` has this value already.
            means.pop("emo_loss", None)
            logs.update(means)
        if "loss" in logs or (evaluations and evaluations != ["train"]):
            self._emo_tokens.log(self)
        super().log(logs, start_time)

    def prediction_step(self, model: Any, inputs: Any, prediction_loss_only: bool, *args: Any, **kwargs: Any) -> Any:
        """A step of an evaluation. If only the loss is needed, the linear form computes it as in training."""
        inputs = {name: value for name, value in inputs.items() if name != TOKEN_WEIGHTS}
        self._emo_loss_only = prediction_loss_only and "labels" in inputs
        try:
            self._measure(model, [inputs], self._emo_loss_only and isinstance(self.emo, LinearEMOLoss))
            if not self._emo_loss_only:
                return super().prediction_step(model, inputs, prediction_loss_only, *args, **kwargs)
            inputs = self._prepare_inputs(inputs)
            count = self._get_num_items_in_batch([inputs], self.args.device)
            with torch.no_grad(), self.compute_loss_context_manager():
                loss = self.compute_loss(model, inputs, num_items_in_batch=count)
            return loss.detach().mean(), None, None
        finally:
            self._emo_loss_only = False

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """An evaluation or prediction, with the means of the loss's parts among its metrics."""
        self._check_logits()
        self._emo_metrics[False] = LossMetrics(entropy=self._emo_entropy)
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        self._check_logits()
        means = self._emo_metrics[False].take(self.accelerator)
        metrics: dict[str, float] = output.metrics  # pyright: ignore[reportAssignmentType] -- a dict by now
        metrics.update({f"{metric_key_prefix}_{name}": value for name, value in means.items()})
        return output

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The batches of a step and the number of their tokens, counted with the model's shift of labels."""
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._measure(self.model_wrapped, batches, isinstance(self.emo, LinearEMOLoss), training=True):
            count = self._get_num_items_in_batch(batches, device)
        if any(TOKEN_WEIGHTS in batch for batch in batches) and all("labels" in batch for batch in batches):
            count = self._weighted_count(batches, device)
        return batches, count

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        # Every process calls this, but a callback may call save_model in only one.
        self._check_logits()
        super()._save_checkpoint(*args, **kwargs)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        # So that the Trainer does not remove the column.
        self._signature_columns = [*dict.fromkeys([*(self._signature_columns or ()), TOKEN_WEIGHTS])]

    def _check_logits(self) -> None:
        """Check that the linear form computes the model's logits. Waits for the device."""
        self._emo_probe.check_logits(self.accelerator.unwrap_model(self.model), self.accelerator)

    def _weighted_count(self, batches: list[Any], device: torch.device) -> Tensor:
        """The Trainer's token count of a step if tokens have weights: the sum of the weights."""
        shift, index = self._loss_shifts_labels, self.emo.options.ignore_index
        counts = [weighted_token_count(batch, shift, index).to(device, torch.float32) for batch in batches]
        count = torch.stack(counts).sum()
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            gathered: Any = self.accelerator.gather(count)
            count = gathered.sum()
        return count / (self.get_tp_size() * self.get_cp_size() * self.get_sp_size())

    def _measure(self, model: Any, batches: list[dict[str, Any]], linear: bool, training: bool = False) -> bool:
        """Measure what the model does to its logits and in its own loss, before tokens are counted.

        Returns:
            Whether tokens must be counted again.
        """
        shift_before = self._loss_shifts_labels
        for batch in batches:
            if "labels" not in batch or not self._emo_probe.needs_batch(linear=linear):
                continue
            model = model.train() if training else model
            unwrapped = self.accelerator.unwrap_model(model)
            with self.compute_loss_context_manager():
                labeled = split_labels(unwrapped, self._prepare_inputs(batch))
                self._emo_probe.measure(model, unwrapped, labeled, linear=linear)
            self._emo_probe.share(self.accelerator)
            self._set_token_count()
        return self._loss_shifts_labels != shift_before

    def _set_token_count(self) -> None:
        """Make the Trainer leave first labels out of its count if nothing predicts them. Virtual tokens would."""
        self._loss_shifts_labels = self._emo_probe.shift and not virtual_token_count(self.model)

    def _call_model(self, model: Any, unwrapped: Any, inputs: dict[str, Any], linear: bool) -> _ForwardPass:
        if not linear:
            return _ForwardPass(model(**inputs))
        head = self._emo_probe.head(unwrapped)
        mixed = self.accelerator.mixed_precision not in ("no", None)
        outputs, hidden, transform = self._emo_probe.call_for_hidden_states(head, model, inputs, mixed=mixed)
        return _ForwardPass(outputs, head, hidden, transform)

    def _emo_result(
        self, call: _ForwardPass, labels: Tensor, options: EMOOptions, weights: Tensor | None = None
    ) -> EMOResult:
        """The loss of a call, with its parts."""
        labels = labels.to(call.device)
        more: dict[str, Any] = {
            "step": self.state.global_step,
            "token_weights": None if weights is None else weights.to(call.device),
            "entropy": self._emo_entropy,
        }
        if call.hidden is None or call.head is None or call.transform is None:
            logits = call.outputs.logits
            self.emo.fit(logits.shape[-1])
            move_loss(self.emo, logits.device)
            # The model has applied its softcap itself.
            return emo_loss_with_parts(logits, labels, self.emo.costs, replace(options, softcap=None), **more)
        transform = call.transform
        weight, bias = transform.weight(call.head.linear), transform.bias(call.head.linear)
        self.emo.fit(len(weight))
        move_loss(self.emo, weight.device)
        hidden, options = transform.hidden(call.hidden.to(call.device)), transform.options(options)
        with self.accelerator.autocast():
            return linear_emo_loss_with_parts(hidden, weight, labels, self.emo.costs, options, bias=bias, **more)

    def _result_with_plain_ce(self, call: _ForwardPass, labels: Tensor, options: EMOOptions) -> EMOResult:
        """The loss of a call, with plain cross-entropy among its parts: not smoothed, and at temperature 1."""
        result, plain_options = self._emo_result(call, labels, options), plain_ce_options(options)
        if plain_options is None:
            return result
        plain_ce = self._emo_result(call, labels, plain_options).parts.ce
        return result._replace(parts=result.parts._replace(ce=plain_ce))

    def _evaluation_ce(self, call: _ForwardPass, labels: Tensor, options: EMOOptions) -> Tensor:
        """The cross-entropy of an evaluation's batch, reduced as the options say. Its parts are added to the metrics.

        The cross-entropy is that of all rows, because the Trainer leaves out rows that are repeated to fill up the last
        batch. The metrics leave them out here.
        """
        result = self._result_with_plain_ce(call, labels, options)
        new_labels = ignore_repeated_rows(labels, self.accelerator, options.ignore_index)
        counted = result if new_labels is labels else self._result_with_plain_ce(call, new_labels, options)
        self._emo_metrics[False].add(counted, new_labels, options)
        total, tokens = result.parts.ce.sum(), counted_mask(labels, options).sum()
        return total if options.reduction == "sum" else total / tokens.to(total.device).clamp(min=1)

    def _auxiliary_loss(self, outputs: Any, num_items_in_batch: Tensor | int | None) -> Tensor | float:
        model = self.accelerator.unwrap_model(self.model)
        auxiliary = self._emo_probe.auxiliary_loss(unwrap_peft(model), outputs)
        # It is already a mean of its batch, so it is averaged over batches if the Trainer does not average the loss.
        accumulated = num_items_in_batch is not None and model.training
        batches = self.current_gradient_accumulation_steps if accumulated else 1
        return 0.0 if auxiliary is None else auxiliary / batches

    def _check_arguments(self) -> None:
        if self.compute_loss_func is not None:
            raise UsageError("both emo= and compute_loss_func= were given", "give only one of them")
        if self.args.torch_compile and isinstance(self.emo, LinearEMOLoss):
            raise UsageError("a compiled model bypasses the hooks that the linear form needs", "give emo=EMOLoss(bank)")
        model: Any = self.model
        if not hasattr(model, "config"):
            raise UsageError(
                f"the model is a {type(model).__name__}, not a Hugging Face model",
                "give a PreTrainedModel, or train with compute_loss_func(loss)",
            )
        check_adapters(model)
        self._check_width(model)
        check_label_smoothing(self.args)
        check_best_metric(self.args, self.compute_metrics, self.emo.options.value_name)
        if getattr(self.args, "loss_type", "nll") not in (None, "nll"):
            raise UsageError(f"loss_type={self.args.loss_type!r} cannot be combined with emo=", "leave it out")  # pyright: ignore[reportAttributeAccessIssue] -- SFTConfig's
        if self.args.n_gpu > 1:
            raise UsageError(
                f"one process uses {self.args.n_gpu} GPUs (DataParallel)", "start one process per GPU with torchrun"
            )

    def _check_width(self, model: Any) -> None:
        """Check the width of the costs before the first batch: a head has at least as many rows as there are logits."""
        rows, costs = head_rows(model), self.emo.costs
        if isinstance(self.emo, LinearEMOLoss) and costs is not None and rows is not None and rows < costs.vocab_size:
            self.emo.fit(rows)
            check_costs(self.emo.costs, rows, self.emo.options)
