"""docs/training.md names every option, objective, mixing and form."""

from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

import costbank.loss
from costbank.loss import EMOOptions, SmoothingOptions
from costbank.loss.costs import FORMS
from costbank.loss.options import Mixing, Objective

TEXT = (Path(__file__).parents[2] / "docs" / "training.md").read_text()


@pytest.mark.parametrize("option", [*fields(EMOOptions), *fields(SmoothingOptions)], ids=lambda option: option.name)
def test_every_option_is_there_with_its_default(option):
    default = f'"{option.default}"' if isinstance(option.default, str) else option.default
    assert f"| `{option.name}` | `{default}` |" in TEXT


@pytest.mark.parametrize("name", [*get_args(Objective), *get_args(Mixing), *FORMS])
def test_every_choice_has_a_row(name: str):
    assert f"\n| `{name}`" in TEXT


def test_the_names_of_the_room_are_these():
    assert costbank.loss.__all__ == [
        "Costs",
        "DenseCosts",
        "DenseSmoothing",
        "EMOLoss",
        "EMOOptions",
        "EMOParts",
        "EMOResult",
        "LinearEMOLoss",
        "LowRankCosts",
        "NeighborCosts",
        "NeighborSmoothing",
        "RoundingError",
        "Schedule",
        "SmoothingOptions",
        "SoftTargets",
        "emo_loss",
        "emo_loss_with_parts",
        "exact_transport_loss",
        "exact_transport_loss_with_parts",
        "linear_emo_loss",
        "linear_emo_loss_with_parts",
        "open_costs",
        "open_smoothing",
        "parallel_emo_loss",
        "parallel_emo_loss_with_parts",
        "parallel_linear_emo_loss",
        "parallel_linear_emo_loss_with_parts",
        "smooth_dense",
        "smooth_neighbors",
    ]
