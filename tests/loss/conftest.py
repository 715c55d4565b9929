import pytest
import torch
from torch import Tensor

from costbank.loss import (
    Costs,
    DenseCosts,
    DenseSmoothing,
    NeighborCosts,
    NeighborSmoothing,
    SmoothingOptions,
    smooth_dense,
    smooth_neighbors,
)

# Tests run in parallel; threads of several processes wait for each other, and take ten times as long.
torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.fixture
def costs(generator: torch.Generator) -> DenseCosts:
    """Unit rows of 37 tokens in 6 dimensions; tokens 4 and 9 have no vector."""
    rows = torch.nn.functional.normalize(torch.randn(37, 6, generator=generator), dim=1)
    rows[[4, 9]] = 0
    return DenseCosts(rows)


@pytest.fixture
def neighbors(costs: DenseCosts) -> NeighborCosts:
    """The 8 nearest neighbors of each token; tokens 4 and 9 have none."""
    near, ids = costs.rows(torch.arange(37)).fill_diagonal_(torch.inf).topk(8, largest=False)
    ids[[4, 9]], near[[4, 9]] = -1, torch.inf
    ids[(ids == 4) | (ids == 9)] = -1
    return NeighborCosts.from_table(costs, ids, near, measure=True)


@pytest.fixture
def smoothing(neighbors: NeighborCosts) -> NeighborSmoothing:
    """Distributions over the neighbors alone; tokens 4 and 9 keep their whole label."""
    return smooth_neighbors(neighbors.ids, neighbors.costs, SmoothingOptions(k=8, perplexity=4.0))


@pytest.fixture
def smoothing_of_all(costs: DenseCosts) -> DenseSmoothing:
    """Distributions over all tokens but the label; tokens 4, 9 and 20 keep their whole label, and are in no other."""
    exempt = torch.zeros(37, dtype=torch.bool)
    exempt[20] = True
    return smooth_dense(costs, SmoothingOptions(perplexity=9.0), exempt=exempt)


@pytest.fixture
def of_form(
    costs: DenseCosts, neighbors: NeighborCosts, smoothing: NeighborSmoothing, smoothing_of_all: DenseSmoothing
) -> dict[str, Costs | None]:
    near = smooth_neighbors(neighbors.ids, neighbors.costs, SmoothingOptions(k=8, perplexity=4.0, label=True))
    of_all = smooth_dense(costs, SmoothingOptions(perplexity=9.0, label=True))
    return {"dense": costs, "neighbors": neighbors, "smoothing": smoothing, "smoothing-of-all": smoothing_of_all,
            "smoothing-with-label": near, "smoothing-of-all-with-label": of_all, "none": None}  # fmt: skip


@pytest.fixture
def logits(generator: torch.Generator) -> Tensor:
    return 3 * torch.randn(29, 37, generator=generator)


@pytest.fixture
def labels(generator: torch.Generator) -> Tensor:
    """Labels: every fifth is ignored, and the others include the tokens without a vector."""
    labels = torch.randint(0, 37, (29,), generator=generator)
    labels[::5] = -100
    labels[1], labels[2] = 4, 9
    return labels


@pytest.fixture
def teacher(generator: torch.Generator) -> Tensor:
    """Distributions [29, 37]; every fifth position has none."""
    q = torch.softmax(2 * torch.randn(29, 37, generator=generator), dim=1)
    q[::5] = 0
    return q
