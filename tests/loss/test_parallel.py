"""Processes that share a vocabulary have the loss of one process that holds all of it."""

import pytest

from tests.loss import parallel_checks as checks
from tests.loss.processes import failures

CHECKS = [
    checks.float64_to_its_last_digits,
    checks.float32_to_its_own,
    checks.sure_and_lost_tokens,
    checks.half_precision,
    checks.reductions_and_weights,
    checks.labels_of_one_slice_or_none,
    checks.ties_across_slices,
    checks.masked_slices,
    checks.common_logits_take_no_digits,
    checks.nan_is_refused_by_all,
    checks.frameworks_may_sum_the_hidden_states_gradient,
    checks.second_backward_is_as_good,
    checks.collectives_are_these,
]


@pytest.fixture(scope="module", params=[2, 4], ids=["two", "four"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What failed; processes are started once for all checks."""
    return failures(CHECKS, request.param, tmp_path_factory.mktemp("told"))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_processes_agree_with_one(told: dict[str, str], check):
    assert check.__name__ not in told, told[check.__name__]
