import pytest
import torch
from torch import Tensor

from costbank.loss import DenseCosts


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
def logits(generator: torch.Generator) -> Tensor:
    return 3 * torch.randn(29, 37, generator=generator)


@pytest.fixture
def labels(generator: torch.Generator) -> Tensor:
    """Every fifth one ignored; the tokens without a vector among the others."""
    labels = torch.randint(0, 37, (29,), generator=generator)
    labels[::5] = -100
    labels[1], labels[2] = 4, 9
    return labels
