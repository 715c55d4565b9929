"""The losses in Hugging Face's `Trainer`, and in what is made from it, such as TRL's `SFTTrainer`.

`compute_loss_func` makes a function for a Trainer as it is; it takes the model's logits. `EMOTrainerMixin` makes a
Trainer of one's own, which never holds the logits of all tokens in training, and logs what the loss is made of.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from costbank.errors import require

# Before the imports that need them: where one is missing, the error names the extra to install.
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
from costbank.trainers.adapters import base_of, check_adapters, virtual_tokens
from costbank.trainers.agreement import Agreement
from costbank.trainers.bestmetric import check_best_metric
from costbank.trainers.decoder import with_decoder_inputs
from costbank.trainers.function import Pinned, compute_loss_func
from costbank.trainers.given import as_bank, as_loss
from costbank.trainers.heads import Head, find_head
from costbank.trainers.means import Means, counted_labels, without_repeated
from costbank.trainers.ownloss import Batch
from costbank.trainers.reduction import (
    as_trained,
    check_ignore_index,
    check_smoothing,
    per_item,
    plain_options,
    to_device,
)
from costbank.trainers.sft import TokenCount, is_sft
from costbank.trainers.tokenizer import check_tokenizer, has_tokenizer_json
from costbank.trainers.weights import COLUMN, WeightsCollator, check_kept, count_weights, having_weights

if TYPE_CHECKING:
    from transformers import Trainer as _Trainer
else:
    _Trainer = object

__all__ = ["EMOTrainerMixin", "compute_loss_func"]

# The first arguments of a Trainer, of SFTTrainer as well.
_ARGUMENTS = ("model", "args", "data_collator", "train_dataset", "eval_dataset")


class EMOTrainerMixin(_Trainer):
    """`class MyTrainer(EMOTrainerMixin, Trainer)`, and the same with TRL's SFTTrainer: a Trainer with `emo=`.

    With a `LinearEMOLoss` or a bank, a training step takes the head's inputs by hooks that exist only during that call,
    leaves the head the last position, and multiplies with its weight a block of tokens at a time. What the model does
    to its logits is measured before the first batch, and proved while training. With an `EMOLoss`, and in evaluation
    where predictions are wanted, the model's own logits are taken. Labels are shifted where the model's own loss
    shifts them, and sums are divided as in the Trainer's own loss. Where the model gives an auxiliary loss
    (mixture of experts), that is added with the config's weight. Where prompt tuning puts virtual tokens before the
    rows, they have no labels, and the last of them predicts the first label.

    A dataset column `token_weights`, a number for each label, multiplies the losses of tokens in training; the mean of
    the step is then the weighted sum over the sum of weights. Evaluations count all tokens alike.

    Logged with the loss are the means over tokens since the line before, `ce`, `emd` and `mean_token_accuracy`, and
    in evaluation `eval_ce` and so on. `eval_loss` is the cross-entropy, as a run without this loss has it;
    `eval_emo_loss` is the mean of this loss over all tokens. Checkpoints are pinned to the loss's costs and options.

    Args:
        emo: the loss; a bank stands for `LinearEMOLoss(bank)`. One that was given a bank is fitted to wider logits, as
            after `model.resize_token_embeddings`; costs that you opened (`open_costs(bank, …)`) must be as wide.
        emo_bank: the bank of `emo`, where that is a loss, to check the tokenizer against; see `check_tokenizer`.
        emo_check_loss: check cross-entropy against the model's own loss of the first batch, and refuse a difference.

    Raises:
        UsageError: `emo` is neither a loss nor a bank, or arguments do not go together; from training, a head that the
            linear form cannot take, or a checkpoint that was trained with other costs or options.
        TokenizerError: `processing_class` is or holds a fast tokenizer, and not that of the bank.
    """

    def __init__(
        self,
        *args: Any,
        emo: EMOLoss | LinearEMOLoss | Bank,
        emo_bank: Bank | None = None,
        emo_check_loss: bool = True,
        **kwargs: Any,
    ) -> None:
        bank = emo if isinstance(emo, Bank) else as_bank(emo_bank, "emo_bank=")
        self.emo = as_loss(emo, "emo=", LinearEMOLoss)
        check_ignore_index(self.emo)
        # One that prepares datasets, as SFTTrainer, reads the first row itself.
        read = hasattr(self, "_prepare_dataset")
        weighted = having_weights({**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs}, read=read)
        super().__init__(*args, **kwargs)
        self._check_arguments()
        check_kept(weighted, having_weights(vars(self), read=read) if weighted else [])
        self.data_collator = WeightsCollator(self.data_collator, self.args)
        if bank is not None and has_tokenizer_json(self.processing_class):
            check_tokenizer(bank, self.processing_class)
        # So that the Trainer counts the tokens of all accumulated batches, and leaves their mean to this loss.
        self.model_accepts_loss_kwargs = True
        self._emo_own = Agreement(self.model, self.emo.options, check_loss=emo_check_loss)
        self._count_by_shift()
        # SFTTrainer logs the entropy of predictions; at another temperature the loss has other probabilities.
        self._emo_entropy = is_sft(self) and self.emo.options.temperature == 1.0
        self._emo_means = {training: Means(entropy=self._emo_entropy) for training in (True, False)}
        self._emo_tokens = TokenCount()
        self._emo_loss_only = False
        self.add_callback(Pinned(self.emo))

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of a batch, as `Trainer.compute_loss` returns it; `inputs` are not changed."""
        if "labels" not in inputs:
            raise UsageError("the batch has no labels", "give a data collator that makes them")
        linear = isinstance(self.emo, LinearEMOLoss) and (model.training or self._emo_loss_only) and not return_outputs
        # What counts tokens has learned already from the batches that it counted.
        if num_items_in_batch is None or not self._emo_own.has_begun(linear=linear):
            self._learn(model, [inputs], linear)
        unwrapped = self.accelerator.unwrap_model(model)
        batch = _batch_of(unwrapped, inputs)
        # An evaluation counts all tokens alike, so that runs with other weights, or without any, can be compared.
        weights = inputs.get(COLUMN) if model.training else None
        head, inputs = None, batch.inputs
        if linear:
            head = find_head(unwrapped)
            mixed = self.accelerator.mixed_precision not in ("no", None)
            outputs, hidden = self._emo_own.hidden_of(head, model, inputs, mixed=mixed)
        else:
            outputs, hidden = model(**inputs), None
        shift = batch.shifted is None and self._emo_own.shift
        labels = batch.labels if batch.shifted is None else batch.shifted
        if weights is not None and batch.shifted is not None:
            weights = nn.functional.pad(weights[..., 1:], (0, 1))
        if labels.shape[1] != (outputs.logits if hidden is None else hidden).shape[1]:
            before = (virtual_tokens(unwrapped), 0)
            labels = nn.functional.pad(labels, before, value=self.emo.options.ignore_index)
            weights = None if weights is None else nn.functional.pad(weights, before)
        if model.training and is_sft(self):
            self._emo_tokens.add(inputs)
        options = as_trained(self.emo.options, num_items_in_batch, shift)
        if model.training:
            result = self._result(outputs, hidden, head, labels, options, weights)
            self._emo_means[True].add(result, labels, options, weights)
            total = result.loss
        else:
            # What a run with cross-entropy is evaluated by: the loss's own value would look like a gain.
            total = self._cross_entropy(outputs, hidden, head, labels, options)
        loss = per_item(total, num_items_in_batch)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            # The count is of all processes, and gradients are averaged over them.
            loss = loss * (self.accelerator.num_processes // self.get_tp_size())
        loss = loss + self._auxiliary_loss(outputs, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the means of the loss's parts where `logs` are of training steps."""
        evaluated = [name.removesuffix("_runtime") for name in logs if name.endswith("_runtime")]
        if "loss" in logs or "train_loss" in logs:
            # At the end of training as well, whose last steps may have no line of their own.
            self._prove()
        if "loss" in logs:
            means = self._emo_means[True].take(self.accelerator)
            # In training it is the `loss` that is logged already.
            means.pop("emo_loss", None)
            logs.update(means)
        if "loss" in logs or (evaluated and evaluated != ["train"]):
            self._emo_tokens.log(self)
        super().log(logs, start_time)

    def prediction_step(self, model: Any, inputs: Any, prediction_loss_only: bool, *args: Any, **kwargs: Any) -> Any:
        """A step of an evaluation; where only the loss is wanted, the linear form makes it as it does in training."""
        inputs = {name: value for name, value in inputs.items() if name != COLUMN}
        self._emo_loss_only = prediction_loss_only and "labels" in inputs
        try:
            self._learn(model, [inputs], self._emo_loss_only and isinstance(self.emo, LinearEMOLoss))
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
        self._prove()
        self._emo_means[False] = Means(entropy=self._emo_entropy)
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        self._prove()
        means = self._emo_means[False].take(self.accelerator)
        metrics: dict[str, float] = output.metrics  # pyright: ignore[reportAssignmentType] -- a dict by now
        metrics.update({f"{metric_key_prefix}_{name}": value for name, value in means.items()})
        return output

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        # What all processes call, unlike save_model, which a callback may call in one of them.
        self._prove()
        super()._save_checkpoint(*args, **kwargs)

    def _prove(self) -> None:
        """Read the proof that the linear form computes the model's logits; the device is waited for."""
        self._emo_own.check(self.accelerator.unwrap_model(self.model), self.accelerator)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The batches of a step and the number of their tokens, which is counted by how the model shifts labels."""
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._learn(self.model_wrapped, batches, isinstance(self.emo, LinearEMOLoss), training=True):
            count = self._get_num_items_in_batch(batches, device)
        if any(COLUMN in batch for batch in batches) and all("labels" in batch for batch in batches):
            count = self._count_weights(batches, device)
        return batches, count

    def _count_weights(self, batches: list[Any], device: torch.device) -> Tensor:
        """What the Trainer counts as the tokens of a step, with the weights that they have."""
        shift, index = self._loss_shifts_labels, self.emo.options.ignore_index
        count = torch.stack([count_weights(batch, shift, index).to(device, torch.float32) for batch in batches]).sum()
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            gathered: Any = self.accelerator.gather(count)
            count = gathered.sum()
        return count / (self.get_tp_size() * self.get_cp_size() * self.get_sp_size())

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        # So that the Trainer does not remove the column.
        self._signature_columns = [*dict.fromkeys([*(self._signature_columns or ()), COLUMN])]

    def _learn(self, model: Any, batches: list[dict[str, Any]], linear: bool, training: bool = False) -> bool:
        """Learn from batches what the model does to its logits and in its own loss, before their tokens are counted.

        Returns:
            Whether tokens are counted otherwise since.
        """
        counted = self._loss_shifts_labels
        for batch in batches:
            if "labels" not in batch or not self._emo_own.wants(linear=linear):
                continue
            model = model.train() if training else model
            unwrapped = self.accelerator.unwrap_model(model)
            with self.compute_loss_context_manager():
                own = _batch_of(unwrapped, self._prepare_inputs(batch))
                self._emo_own.learn(model, unwrapped, own, linear=linear)
            self._emo_own.share(self.accelerator)
            self._count_by_shift()
        return self._loss_shifts_labels != counted

    def _count_by_shift(self) -> None:
        # Where labels are shifted nothing predicts the first one, and it is not counted. After virtual tokens, the last
        # of them does.
        self._loss_shifts_labels = self._emo_own.shift and not virtual_tokens(self.model)

    def _result(
        self,
        outputs: Any,
        hidden: Tensor | None,
        head: Head | None,
        labels: Tensor,
        options: EMOOptions,
        weights: Tensor | None = None,
    ) -> EMOResult:
        place = (outputs.logits if hidden is None or head is None else head.linear.weight).device
        labels, weights = labels.to(place), None if weights is None else weights.to(place)
        more: dict[str, Any] = {"step": self.state.global_step, "token_weights": weights, "entropy": self._emo_entropy}
        if hidden is None or head is None:
            self.emo.fit(outputs.logits.shape[-1])
            to_device(self.emo, outputs.logits)
            # The model has capped its logits itself.
            options = replace(options, softcap=None)
            return emo_loss_with_parts(outputs.logits, labels, self.emo.costs, options, **more)
        form = self._emo_own.form
        assert form is not None, "the form is measured before the first batch"
        weight, bias = form.weight(head.linear), form.bias(head.linear)
        self.emo.fit(len(weight))
        to_device(self.emo, weight)
        options = form.options(options)
        with self.accelerator.autocast():
            return linear_emo_loss_with_parts(
                hidden.to(place), weight, labels, self.emo.costs, options, bias=bias, **more
            )

    def _with_plain_ce(
        self, outputs: Any, hidden: Tensor | None, head: Head | None, labels: Tensor, options: EMOOptions
    ) -> EMOResult:
        """A result whose parts hold the plain cross-entropy: not smoothed, and at a temperature of 1."""
        result, plain = self._result(outputs, hidden, head, labels, options), plain_options(options)
        if plain is None:
            return result
        ce = self._result(outputs, hidden, head, labels, plain).parts.ce
        return result._replace(parts=result.parts._replace(ce=ce))

    def _cross_entropy(
        self, outputs: Any, hidden: Tensor | None, head: Head | None, labels: Tensor, options: EMOOptions
    ) -> Tensor:
        """The cross-entropy of a batch of an evaluation, reduced as the options say; all parts are added to the means.

        It is of all rows, since the Trainer leaves out those that fill up the last batch; the means are without them.
        """
        result = self._with_plain_ce(outputs, hidden, head, labels, options)
        once = without_repeated(labels, self.accelerator, options.ignore_index)
        counted = result if once is labels else self._with_plain_ce(outputs, hidden, head, once, options)
        self._emo_means[False].add(counted, once, options)
        total, tokens = result.parts.ce.sum(), counted_labels(labels, options).sum()
        return total if options.reduction == "sum" else total / tokens.to(total.device).clamp(min=1)

    def _auxiliary_loss(self, outputs: Any, num_items_in_batch: Tensor | int | None) -> Tensor | float:
        model = self.accelerator.unwrap_model(self.model)
        auxiliary = self._emo_own.auxiliary_loss(base_of(model), outputs)
        # A mean of its own: where the Trainer leaves accumulation to the loss, it is averaged over the batches.
        accumulated = num_items_in_batch is not None and model.training
        batches = self.current_gradient_accumulation_steps if accumulated else 1
        return 0.0 if auxiliary is None else auxiliary / batches

    def _check_arguments(self) -> None:
        if self.compute_loss_func is not None:
            raise UsageError("both emo= and compute_loss_func= were given", "give one of them")
        if self.args.torch_compile and isinstance(self.emo, LinearEMOLoss):
            raise UsageError("a compiled model bypasses the hooks that the linear form needs", "give emo=EMOLoss(bank)")
        model: Any = self.model
        if not hasattr(model, "config"):
            raise UsageError(
                f"the model is a {type(model).__name__}, and no Hugging Face model",
                "give a PreTrainedModel, or train with compute_loss_func(loss)",
            )
        check_adapters(model)
        self._check_width(model)
        check_smoothing(self.args)
        check_best_metric(self.args, self.compute_metrics)
        if getattr(self.args, "loss_type", "nll") not in (None, "nll"):
            raise UsageError(f"loss_type={self.args.loss_type!r} cannot be combined with emo=", "leave it out")  # pyright: ignore[reportAttributeAccessIssue] -- SFTConfig's
        if self.args.n_gpu > 1:
            raise UsageError(
                f"one process with {self.args.n_gpu} GPUs (DataParallel)", "start one process for each with torchrun"
            )

    def _check_width(self, model: Any) -> None:
        """Check at once what no batch can change: a head has at least as many rows as the model has logits."""
        weight, costs = getattr(model.get_output_embeddings(), "weight", None), self.emo.costs
        if not isinstance(self.emo, LinearEMOLoss) or costs is None or not isinstance(weight, Tensor):
            return
        # A sharded or quantized weight has another shape; it is refused later, by name.
        if weight.ndim == 2 and weight.is_floating_point() and len(weight) < costs.vocab_size:
            self.emo.fit(len(weight))
            check_costs(self.emo.costs, len(weight), self.emo.options)


def _batch_of(unwrapped: Any, inputs: dict[str, Any]) -> Batch:
    """A batch, with labels apart and with the decoder's inputs that the model would make of them."""
    labels = inputs["labels"]
    rest = {name: value for name, value in inputs.items() if name not in ("labels", "shift_labels", COLUMN)}
    made = with_decoder_inputs(unwrapped, rest, labels)
    return Batch(made, labels, inputs.get("shift_labels"), None if made is rest else rest)
