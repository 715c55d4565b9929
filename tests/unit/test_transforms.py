"""Transforms against their definitions, computed densely in float64."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from costbank.errors import InputError, UsageError
from costbank.transforms import canonical_transform, fit_transforms, normalize, output_dim, parse_transform

DIM = 12


@pytest.fixture
def rows(random: np.random.Generator) -> np.ndarray:
    """Rows with a mean and unequal variances; every tenth is zero, like the rows of tokens without a vector."""
    rows = random.standard_normal((300, DIM)) * np.linspace(0.5, 3, DIM) @ random.standard_normal((DIM, DIM)) + 2
    rows[::10] = 0
    return rows.astype(np.float32)


def _apply(rows: np.ndarray, transforms: tuple[str, ...], blocks: int = 7) -> np.ndarray:
    affine, applied = fit_transforms(transforms, np.array_split(rows, blocks))
    assert [record["name"] for record in applied] == list(transforms)
    return affine(rows, rows.any(axis=1))


def _center(x: np.ndarray) -> np.ndarray:
    return x - x.mean(axis=0)


def _abtt(x: np.ndarray, count: int) -> np.ndarray:
    """Algorithm 1 of Mu and Viswanath (2018)."""
    x = _center(x)
    top = PCA(count).fit(x).components_
    return x - x @ top.T @ top


def _whiten(x: np.ndarray) -> np.ndarray:
    x = _center(x)
    values, directions = np.linalg.eigh(x.T @ x / len(x))
    return x @ directions / np.sqrt(values)


DENSE = {
    ("center",): _center,
    ("abtt:3",): lambda x: _abtt(x, 3),
    ("abtt",): lambda x: _abtt(x, 2),
    ("pca:5",): lambda x: PCA(5).fit_transform(x),
    ("whiten",): _whiten,
    ("center", "center"): _center,
    ("abtt:1", "pca:4"): lambda x: PCA(4).fit_transform(_abtt(x, 1)),
    ("pca:6", "whiten"): lambda x: _whiten(PCA(6).fit_transform(x)),
}


@pytest.mark.parametrize("transforms", DENSE, ids=" ".join)
def test_a_transform_is_what_its_definition_says(rows: np.ndarray, transforms: tuple[str, ...]):
    """Directions are unique up to their sign, and whitening up to a rotation, so inner products are compared."""
    actual = _apply(rows, transforms)
    usable = rows.any(axis=1)
    expected = DENSE[transforms](rows[usable].astype(np.float64))
    assert actual.shape[1] == expected.shape[1] == output_dim(transforms, DIM)
    scale = np.abs(expected @ expected.T).max()
    assert np.allclose(actual[usable] @ actual[usable].T, expected @ expected.T, atol=2e-4 * scale)
    assert not actual[~usable].any()


def test_directions_without_variance_are_not_blown_up(rows: np.ndarray):
    flat = np.concatenate([rows, np.where(rows.any(axis=1, keepdims=True), 0.25, 0)], axis=1).astype(np.float32)
    result = _apply(flat, ("whiten",))
    assert np.abs(result).max() < 10
    assert np.linalg.matrix_rank(result) == DIM


@pytest.mark.parametrize("transforms", [("center",), ("pca:4",), ("whiten",)])
def test_the_block_size_changes_almost_nothing(rows: np.ndarray, transforms: tuple[str, ...]):
    assert np.allclose(_apply(rows, transforms, 1), _apply(rows, transforms, 60), atol=1e-3)


def test_a_large_mean_costs_no_digits(random: np.random.Generator):
    rows = (random.standard_normal((500, 4)) + 1e4).astype(np.float32)
    result = _apply(rows, ("whiten",))
    assert np.allclose(np.cov(result.T, bias=True), np.eye(4), atol=1e-3)


def test_too_few_rows_are_refused():
    with pytest.raises(InputError, match="fewer than two rows are not zero"):
        fit_transforms(("center",), [np.eye(1, 3, dtype=np.float32), np.zeros((5, 3), np.float32)])


@pytest.mark.parametrize("text", ["twist", "center:2", "pca", "pca:0", "abtt:x", "whiten:1", ""])
def test_an_invalid_transform_is_refused(text: str):
    with pytest.raises(UsageError, match="not a transform"):
        parse_transform(text)


@pytest.mark.parametrize("transforms", [("pca:13",), ("abtt:12",), ("pca:4", "abtt:4"), ("pca:4", "pca:5")])
def test_more_directions_than_there_are_are_refused(transforms: tuple[str, ...]):
    with pytest.raises(UsageError, match="more directions"):
        output_dim(transforms, DIM)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rows_are_divided_by_their_exact_length(random: np.random.Generator, dtype: type):
    rows = (random.standard_normal((50, 300)) * 10.0 ** random.integers(-3, 3, (50, 1))).astype(dtype)
    rows[7] = 0
    unit, norms = normalize(rows)
    exact = np.linalg.norm(rows.astype(np.float64), axis=1)
    assert np.allclose(norms, exact, rtol=1e-7)
    divided = rows.astype(np.float64) / np.where(exact > 0, exact, 1)[:, None]
    assert np.array_equal(unit, divided.astype(np.float32))


@pytest.mark.parametrize("transform", ["abtt:1", "pca:1", "center", "whiten"])
def test_rows_of_which_only_rounding_is_left_are_zero(random: np.random.Generator, transform: str):
    """All rows are on one line: the transform removes everything, and rounding errors must not become a direction."""
    line = random.standard_normal(64)
    rows = (random.standard_normal((110, 1)) * line).astype(np.float32)
    rows[:2] = rows[2:].mean(axis=0) if transform == "center" else rows[:2]
    result = _apply(rows, (transform,))
    if transform == "abtt:1":
        assert not result.any()
    elif transform == "center":
        assert np.linalg.norm(result[:2]) < 1e-2
        assert result[2:].any(axis=1).all()
    else:
        assert result.any(axis=1).all()


def test_a_transform_has_one_spelling():
    assert [canonical_transform(text) for text in ("abtt", "abtt:02", "pca:7", "center")] == [
        "abtt:2", "abtt:2", "pca:7", "center",
    ]  # fmt: skip
