"""Check the metric that selects the best checkpoint, if this loss logs it."""

import logging
from typing import Any

from costbank.errors import UsageError

__all__ = ["check_best_metric"]

_LOG = logging.getLogger(__name__)
# Names that evaluations log after a prefix.
_SMALLER_IS_BETTER = ("ce", "emd", "objective_value", "emo_loss")
_LOGGED = (*_SMALLER_IS_BETTER, "mean_token_accuracy")


def check_best_metric(arguments: Any, compute_metrics: Any, value_name: str) -> None:
    """Warn before training if `metric_for_best_model` would keep the worst checkpoint, or would have no value.

    Args:
        arguments: `TrainingArguments`. They do not show whether the user gave `greater_is_better`: by default they set
            it to True for metrics with a name that does not end in "loss".
        compute_metrics: the Trainer's argument.
        value_name: the name of the objective's value in the logs.

    Raises:
        UsageError: the metric is the value of another objective.
    """
    metric = arguments.metric_for_best_model
    if metric is None:
        return
    other = "emd" if value_name == "objective_value" else "objective_value"
    if _has_name(metric, (other,)) and compute_metrics is None:
        raise UsageError(
            f"metric_for_best_model is {metric!r}, which this loss does not log",
            f"use {metric.removesuffix(other)}{value_name}, or eval_loss, which is the plain cross-entropy",
        )
    if arguments.greater_is_better and _has_name(metric, _SMALLER_IS_BETTER):
        _LOG.warning(
            "metric_for_best_model=%r is better when smaller, but greater_is_better is True, so the worst checkpoint "
            "would be kept as the best (TrainingArguments defaults to True for names that do not end in 'loss'): set "
            "greater_is_better=False", metric,
        )  # fmt: skip
    generates = getattr(arguments, "predict_with_generate", False) and not arguments.prediction_loss_only
    if generates and compute_metrics is not None and _has_name(metric, _LOGGED):
        _LOG.warning(
            "metric_for_best_model=%r: evaluations with predict_with_generate=True and compute_metrics do not compute "
            "this loss or its parts, so training ends with a KeyError at the first evaluation unless compute_metrics "
            "returns this metric: set metric_for_best_model='eval_loss', which is the model's own loss, or leave out "
            "predict_with_generate", metric,
        )  # fmt: skip


def _has_name(metric: str, names: tuple[str, ...]) -> bool:
    """Whether a metric has one of these names after any prefix, such as `eval_` or the name of a dataset."""
    return any(metric == name or metric.endswith(f"_{name}") for name in names)
