"""A Ray cluster of several real raylets on this machine."""

from collections.abc import Iterator
from typing import Any

import pytest

ray = pytest.importorskip("ray")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A head without CPUs and three nodes with one CPU each, one of which a test kills.

    Tests share it, because each node starts six processes, which takes seconds.
    """
    from ray.cluster_utils import Cluster

    ray_cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(3):
            ray_cluster.add_node(num_cpus=1)
        ray_cluster.wait_for_nodes()
        yield ray_cluster
    finally:
        ray.shutdown()
        ray_cluster.shutdown()
