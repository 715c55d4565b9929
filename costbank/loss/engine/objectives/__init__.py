"""The objectives: the value D of each token, and its gradient in closed form. Formulas are those of `EMOOptions`."""

from costbank.errors import UsageError
from costbank.loss.costs import Costs, DenseCosts
from costbank.loss.engine.objectives.base import Block, Delta, Gradient, Objective
from costbank.loss.engine.objectives.dense import DenseEMO, DenseGibbs, DenseLog, Kernel, SoftEMO
from costbank.loss.engine.objectives.neighbors import D2GPo, NeighborEMO, NeighborGibbs, NeighborLog
from costbank.loss.options import EMOOptions

__all__ = ["Block", "Gradient", "Objective", "check_form", "objective_of"]

_DENSE = {"emo": DenseEMO, "kernel": Kernel, "log": DenseLog, "gibbs": DenseGibbs}
_NEIGHBORS = {"emo": NeighborEMO, "log": NeighborLog, "gibbs": NeighborGibbs, "d2gpo": D2GPo}
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
        raise UsageError(f"the objective {name!r} needs costs", "give the costs of a bank: open_costs(bank, 'dense')")
    if name not in (_DENSE if isinstance(costs, DenseCosts) else _NEIGHBORS):
        forms = [form for form, known in (("dense or low-rank", _DENSE), ("neighbors", _NEIGHBORS)) if name in known]
        raise UsageError(
            f"the objective {name!r} does not support {costs.form} costs",
            f"open the bank's costs as {' or '.join(forms)}",
        )


def objective_of(costs: Costs | None, options: EMOOptions, soft: bool) -> Objective:
    """The objective of a call. `check_form` has accepted its costs, and `check_soft` its soft targets."""
    name = options.objective
    if costs is None or not options.needs_costs:
        return Delta(options) if name == "delta" else Objective(options)
    kinds = _NEIGHBORS if not isinstance(costs, DenseCosts) else _SOFT if soft else _DENSE
    return kinds[name](options, costs)
