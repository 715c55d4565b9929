"""Processes that share a vocabulary get the loss that one process with the whole vocabulary gets."""

import subprocess
import sys

import pytest
import torch

from costbank.errors import UsageError
from costbank.loss import parallel_emo_loss, parallel_linear_emo_loss
from tests.loss import parallel_checks as checks
from tests.loss import sharing_checks as sharing
from tests.loss.processes import failures

CHECKS = [
    checks.float64_to_its_last_digits,
    checks.float32_to_its_own,
    checks.sure_and_lost_tokens,
    checks.half_precision,
    checks.on_kernels,
    checks.reductions_and_weights,
    checks.labels_of_one_slice_or_none,
    checks.ties_across_slices,
    checks.masked_slices,
    checks.common_logits_take_no_digits,
    checks.nan_is_refused_by_all,
    checks.frameworks_may_sum_the_hidden_states_gradient,
    checks.second_backward_is_as_good,
    checks.collectives_are_these,
    sharing.dtensors_come_with_their_place,
    sharing.logits_are_dtensors_too,
    sharing.other_placements_are_refused,
    sharing.sizes_are_checked_in_words,
    sharing.groups_may_be_some_of_the_processes,
    sharing.soft_targets_are_of_the_whole_vocabulary,
]


# What depends on the number of processes: the merging of sums, and who has the label or the largest logit.
WITH_FOUR = [
    checks.float64_to_its_last_digits,
    checks.labels_of_one_slice_or_none,
    checks.ties_across_slices,
    checks.masked_slices,
    checks.collectives_are_these,
    sharing.dtensors_come_with_their_place,
    sharing.groups_may_be_some_of_the_processes,
]


@pytest.fixture(scope="module")
def failed_of_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The failed checks. The processes are started once for all checks."""
    return failures(CHECKS, 2, tmp_path_factory.mktemp("checks"))


@pytest.fixture(scope="module")
def failed_of_four(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return failures(WITH_FOUR, 4, tmp_path_factory.mktemp("checks"))


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_two_processes_agree_with_one(failed_of_two: dict[str, str], check):
    assert check.__name__ not in failed_of_two, failed_of_two[check.__name__]


@pytest.mark.slow
@pytest.mark.parametrize("check", WITH_FOUR, ids=lambda check: check.__name__)
def test_four_processes_agree_with_one(failed_of_four: dict[str, str], check):
    assert check.__name__ not in failed_of_four, failed_of_four[check.__name__]


@pytest.mark.slow
def test_a_failed_check_is_reported(tmp_path):
    """Checks run in other processes: a failure in any of these must make the test fail here."""
    failed = failures([checks.nan_is_refused_by_all, checks.one_process_fails, checks.masked_slices], 2, tmp_path)
    assert set(failed) == {"one_process_fails", "masked_slices"}
    assert "it was not refused" in failed["one_process_fails"]
    assert "did not run, because one_process_fails failed" in failed["masked_slices"]


def test_parallel_losses_need_initialized_processes(costs):
    hidden, weight, labels = torch.zeros(2, 3), torch.zeros(37, 3), torch.zeros(2, dtype=torch.long)
    for call in (
        lambda: parallel_linear_emo_loss(hidden, weight, labels, costs),
        lambda: parallel_emo_loss(hidden @ weight.T, labels, costs),
    ):
        with pytest.raises(UsageError, match="not initialized") as caught:
            call()
        assert "init_process_group" in caught.value.hint


@pytest.mark.slow
def test_importing_the_losses_does_not_load_dtensors():
    code = "import sys, costbank.loss; print('torch.distributed.tensor' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "False"
