"""A Ray cluster of several real raylets on this machine."""

from collections.abc import Iterator
from typing import Any

import pytest

ray = pytest.importorskip("ray")


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without CPUs, to which a test adds nodes."""
    from ray.cluster_utils import Cluster

    ray_cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        yield ray_cluster
    finally:
        ray.shutdown()
        ray_cluster.shutdown()
