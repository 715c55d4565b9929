"""The objectives: the value D of each token, and its gradient over the probabilities of the wrong tokens.

An objective sees a block three times: its logits (`read`), its probabilities with the label's own left out (`measure`,
`value`), and again when they become the gradient (`gradient_`). Formulas are those of `EMOOptions`.
"""

from costbank.errors import UsageError
from costbank.loss.columns import Columns
from costbank.loss.costs import Costs, DenseCosts, NeighborCosts
from costbank.loss.objectives.base import Block, Buffers, Delta, Objective
from costbank.loss.objectives.dense import DenseEMO, DenseGibbs, DenseLog, Kernel, SoftEMO
from costbank.loss.objectives.nearby import D2GPo, NeighborEMO, NeighborGibbs, NeighborLog
from costbank.loss.options import EMOOptions
from costbank.loss.soft import SoftBlock

__all__ = ["Objective", "check_form", "objective_of"]

_DENSE = {"emo": DenseEMO, "kernel": Kernel, "log": DenseLog, "gibbs": DenseGibbs}
_NEARBY = {"emo": NeighborEMO, "log": NeighborLog, "gibbs": NeighborGibbs, "d2gpo": D2GPo}


def check_form(costs: Costs | None, options: EMOOptions) -> None:
    """Check that the objective supports this form of costs.

    Raises:
        UsageError: it is not; forms of which it is are named.
    """
    name = options.objective
    if not options.needs_costs:
        return
    if costs is None:
        raise UsageError(f"the objective {name!r} needs costs", "give a bank's: open_costs(bank, 'dense')")
    if name not in (_DENSE if isinstance(costs, DenseCosts) else _NEARBY):
        forms = [form for form, known in (("dense or low-rank", _DENSE), ("neighbors", _NEARBY)) if name in known]
        raise UsageError(
            f"the objective {name!r} with {costs.form} costs", f"open the bank's costs as {' or '.join(forms)}"
        )


def objective_of(
    costs: Costs | None, options: EMOOptions, columns: Columns, buffers: Buffers, soft: SoftBlock | None = None
) -> Objective:
    """The objective of a block, from costs that `check_form` has seen; of soft targets that `check_soft` has."""
    block, name = Block(options, columns, buffers), options.objective
    if isinstance(costs, DenseCosts) and soft is not None and options.needs_costs:
        return (SoftEMO if name == "emo" else Kernel)(block, costs, soft)
    if isinstance(costs, DenseCosts) and options.needs_costs:
        return _DENSE[name](block, costs)
    if isinstance(costs, NeighborCosts) and options.needs_costs:
        return _NEARBY[name](block, costs)
    return Delta(block) if name == "delta" else Objective(block)
