"""The objectives: the value D of each token, and its gradient in closed form. Formulas are those of `EMOOptions`."""

from collections.abc import Callable, Mapping
from typing import Any

from costbank.errors import UsageError
from costbank.loss.costs import Costs, DenseCosts, DenseSmoothing, NeighborSmoothing
from costbank.loss.engine.objectives.base import Block, Delta, Gradient, Objective
from costbank.loss.engine.objectives.dense import DenseEMO, DenseLog, Kernel, SmoothedOverAll, SoftEMO
from costbank.loss.engine.objectives.neighbors import (
    D2GPo,
    NeighborEMO,
    NeighborLog,
    SmoothedOverNeighbors,
)
from costbank.loss.options import EMOOptions

__all__ = ["Block", "Gradient", "Objective", "check_form", "objective_of"]

_DENSE = {"emo": DenseEMO, "kernel": Kernel, "log": DenseLog}
_NEIGHBORS = {"emo": NeighborEMO, "log": NeighborLog, "d2gpo": D2GPo}
_SMOOTHING = "neighbor_smoothing"
_SOFT = {"emo": SoftEMO, "kernel": Kernel}


def check_form(costs: Costs | None, options: EMOOptions) -> None:
    """Check that an objective supports this form of costs.

    Raises:
        UsageError: it does not; the hint names the supported forms.
    """
    name = options.objective
    if not options.needs_costs:
        return
    if costs is None:
        opened = "open_smoothing(bank)" if name == _SMOOTHING else "open_costs(bank, 'dense')"
        raise UsageError(f"the objective {name!r} needs costs", f"give the costs of a bank: {opened}")
    if name in _of_form(costs):
        return
    if name == _SMOOTHING:
        hint = "give open_smoothing(bank), or choose an objective for costs, such as objective='emo'"
    elif isinstance(costs, NeighborSmoothing | DenseSmoothing):
        hint = "give open_costs(bank), or the options EMOOptions.preset('recommended')"
    else:
        forms = [form for form, known in (("dense or low-rank", _DENSE), ("neighbors", _NEIGHBORS)) if name in known]
        hint = f"open the bank's costs as {' or '.join(forms)}"
    raise UsageError(f"the objective {name!r} does not support {costs.form} costs", hint)


def objective_of(costs: Costs | None, options: EMOOptions, soft: bool) -> Objective:
    """The objective of a call. `check_form` has accepted its costs, and `check_soft` its soft targets."""
    name = options.objective
    if costs is None or not options.needs_costs:
        return Delta(options) if name == "delta" else Objective(options)
    return (_SOFT if soft else _of_form(costs))[name](options, costs)


def _of_form(costs: Costs) -> Mapping[str, Callable[[EMOOptions, Any], Objective]]:
    """The objectives that support this form of costs."""
    if isinstance(costs, DenseSmoothing):
        return {_SMOOTHING: SmoothedOverAll}
    if isinstance(costs, NeighborSmoothing):
        return {_SMOOTHING: SmoothedOverNeighbors}
    return _DENSE if isinstance(costs, DenseCosts) else _NEIGHBORS
