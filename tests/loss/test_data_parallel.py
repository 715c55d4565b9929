"""The linear loss inside models that FSDP or DDP wraps."""

import pytest

from tests.loss import data_parallel_checks as checks
from tests.loss.processes import failures

CHECKS = [
    checks.fully_sharded_training_is_that_of_one_process,
    checks.weights_outside_of_forward_are_refused,
    checks.checkpoints_hold_no_costs,
    checks.replicated_training_is_that_of_one_process,
]


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return failures(CHECKS, 2, tmp_path_factory.mktemp("checks"))


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_processes_that_share_a_batch(failed: dict[str, str], check):
    assert check.__name__ not in failed, failed[check.__name__]
