"""The workers that share the cores in a run of all tests use one thread each; more threads would wait by spinning."""

import os

import faiss
import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info


@pytest.mark.skipif(
    "PYTEST_XDIST_WORKER" not in os.environ or os.environ.get("OMP_NUM_THREADS") != "1",
    reason="one process may use all cores, and so may workers if OMP_NUM_THREADS is set to more",
)
def test_a_worker_of_the_tests_has_one_thread():
    assert np.dot([2.0], [3.0]) == 6
    assert {pool["filepath"]: pool["num_threads"] for pool in threadpool_info() if pool["num_threads"] != 1} == {}
    assert (faiss.omp_get_max_threads(), torch.get_num_threads()) == (1, 1)
