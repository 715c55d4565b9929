"""What chooses the best checkpoint, where that is a number of ours."""

import logging
from typing import Any

__all__ = ["check_best_metric"]

_LOG = logging.getLogger(__name__)
# Parts of the loss for which smaller is better, and all of them, as evaluations log them after a prefix.
_SMALLER = ("ce", "emd", "emo_loss")
_PARTS = (*_SMALLER, "mean_token_accuracy")


def check_best_metric(arguments: Any, compute_metrics: Any) -> None:
    """Warn before training where `metric_for_best_model` would keep the worst checkpoint, or has no value.

    Args:
        arguments: `TrainingArguments`. They no longer tell whether a person gave `greater_is_better`: where it was left
            out, they have set it to whether the metric's name ends in something other than "loss".
        compute_metrics: of the Trainer.
    """
    metric = arguments.metric_for_best_model
    if metric is None:
        return
    if arguments.greater_is_better and _is_one_of(metric, _SMALLER):
        _LOG.warning(
            "metric_for_best_model=%r is better when smaller, and greater_is_better is True, so the worst checkpoint "
            "is kept as the best (a TrainingArguments sets it so for names that do not end in 'loss'): give "
            "greater_is_better=False", metric,
        )  # fmt: skip
    generates = getattr(arguments, "predict_with_generate", False) and not arguments.prediction_loss_only
    if generates and compute_metrics is not None and _is_one_of(metric, _PARTS):
        _LOG.warning(
            "metric_for_best_model=%r: evaluations with predict_with_generate=True and compute_metrics do not compute "
            "this loss or its parts, so unless compute_metrics returns this metric, training ends with a KeyError at "
            "the first evaluation: take metric_for_best_model='eval_loss', which is the model's own loss, or leave out "
            "predict_with_generate", metric,
        )  # fmt: skip


def _is_one_of(metric: str, names: tuple[str, ...]) -> bool:
    """Whether a metric has one of these names, after any prefix: eval_, or that of one of several datasets."""
    return any(metric == name or metric.endswith(f"_{name}") for name in names)
