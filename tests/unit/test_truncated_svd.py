"""The leading singular triplets of a sparse matrix, compared with LAPACK's."""

import tracemalloc

import numpy as np
import pytest
from scipy import sparse
from threadpoolctl import threadpool_limits

from costbank.sources.cooccurrence import truncated_svd as module
from costbank.sources.cooccurrence.truncated_svd import TruncatedSvd, basis_width, truncated_svd

TOLERANCE = 1e-5


def _of_values(values: np.ndarray, rows: int, columns: int) -> sparse.csr_matrix:
    """A dense matrix with these singular values, in sparse storage."""
    random = np.random.default_rng(3)
    left = np.linalg.qr(random.standard_normal((rows, len(values))))[0]
    right = np.linalg.qr(random.standard_normal((columns, len(values))))[0]
    return sparse.csr_matrix(((left * values) @ right.T).astype(np.float32))


def _sparse(rows: int, columns: int, density: float = 0.02) -> sparse.csr_matrix:
    matrix = sparse.random(rows, columns, density, "csr", np.float32, rng=np.random.default_rng(5))
    return sparse.csr_matrix(matrix)


def _check(matrix: sparse.csr_matrix, dim: int, result: TruncatedSvd) -> None:
    dense = matrix.toarray().astype(np.float64)
    exact = np.zeros(dim)
    values = np.linalg.svd(dense, compute_uv=False)[:dim]
    exact[: len(values)] = values
    rank = int((exact > 2 * TOLERANCE * exact[0]).sum())
    assert result.left.shape == (dense.shape[0], dim)
    assert result.right.shape == (dense.shape[1], dim)
    assert (result.left.dtype, result.values.dtype, result.right.dtype) == (np.float32, np.float64, np.float32)
    assert np.abs(result.values - exact).max() <= 2 * TOLERANCE * exact[0]
    assert result.residual <= TOLERANCE
    errors = [
        np.linalg.norm(dense @ result.right - result.left * result.values, axis=0).max(),
        np.linalg.norm(dense.T @ result.left - result.right * result.values, axis=0).max(),
    ]
    assert max(errors) == pytest.approx(result.residual * result.values[0], rel=0.2, abs=1e-6 * exact[0])
    for side in (result.left, result.right):
        assert np.allclose(side[:, :rank].T @ side[:, :rank], np.eye(rank), atol=1e-5)
    assert not result.left[:, result.values == 0].any()
    assert not result.right[:, result.values == 0].any()


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(700, 500), (500, 700), (600, 600)])
@pytest.mark.parametrize("dim", [1, 12, 40])
def test_the_leading_triplets_are_those_of_the_dense_matrix(shape: tuple[int, int], dim: int):
    matrix = _sparse(*shape)
    assert min(shape) > basis_width(dim), "it is not treated densely"
    _check(matrix, dim, truncated_svd(matrix, dim, tolerance=TOLERANCE))


SPECTRA = {
    "slow decay": np.arange(1, 401) ** -0.3,
    "fast decay": 0.8 ** np.arange(400.0),
    "pairs": np.repeat(np.arange(200, 0, -1.0), 2),
    "one value": np.ones(400),
    "many copies": np.repeat([3.0, 2.0, 1.0], [90, 110, 200]),
    "more copies than a block is wide": np.repeat(np.arange(16, 0, -1.0), 25),
    "close": 1 - 1e-5 * np.arange(400),
    "one far above": np.concatenate([[1000.0], np.arange(399, 0, -1.0)]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("dim", [20, 60])
def test_close_and_repeated_values_are_all_found(name: str, dim: int):
    matrix = _of_values(SPECTRA[name], 520, 400)
    assert min(matrix.shape) > basis_width(dim)
    _check(matrix, dim, truncated_svd(matrix, dim, tolerance=TOLERANCE))


@pytest.mark.slow
@pytest.mark.parametrize(("copies", "distinct", "dim"), [(100, 30, 128), (30, 100, 60), (60, 40, 100)])
def test_a_value_with_more_copies_than_a_block_is_wide_is_found_completely(copies: int, distinct: int, dim: int):
    exact = np.repeat(np.linspace(2, 1, distinct), copies)
    result = truncated_svd(sparse.csr_matrix(sparse.diags(exact.astype(np.float32))), dim, tolerance=TOLERANCE)
    assert np.abs(result.values - exact[:dim]).max() <= TOLERANCE
    assert result.residual <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 7, 30])
@pytest.mark.parametrize("shape", [(500, 400), (400, 500), (40, 300)])
def test_triplets_beyond_the_rank_are_zero(rank: int, shape: tuple[int, int]):
    matrix = _of_values(np.linspace(2, 1, rank), *shape)
    result = truncated_svd(matrix, 36, tolerance=TOLERANCE)
    _check(matrix, 36, result)
    assert np.count_nonzero(result.values) == rank


@pytest.mark.parametrize("shape", [(50, 9), (9, 50), (900, 80), (10, 10), (1, 6), (6, 1)])
def test_more_dimensions_than_a_side_has_are_zero(shape: tuple[int, int]):
    matrix = _sparse(*shape, density=0.9)
    _check(matrix, 100, truncated_svd(matrix, 100, tolerance=TOLERANCE))


@pytest.mark.parametrize("shape", [(400, 300), (5, 4), (0, 7), (7, 0)])
def test_a_matrix_of_zeros_has_none(shape: tuple[int, int]):
    result = truncated_svd(sparse.csr_matrix(shape, dtype=np.float32), 12)
    assert result.left.shape == (shape[0], 12)
    assert result.right.shape == (shape[1], 12)
    assert not result.left.any()
    assert not result.values.any()
    assert (result.residual, result.passes) == (0, 0)


def test_rows_and_columns_of_zeros_stay_zero():
    dense = _sparse(600, 500, 0.05).toarray()
    dense[100:200] = 0
    dense[:, 50:90] = 0
    result = truncated_svd(sparse.csr_matrix(dense), 24)
    assert not result.left[100:200].any()
    assert not result.right[50:90].any()
    assert result.left[:100].any(axis=1).all()


def test_parts_of_a_matrix_that_share_nothing_are_all_found():
    matrix = sparse.csr_matrix(sparse.block_diag([_sparse(120, 100, 0.1)] * 5))
    _check(matrix, 30, truncated_svd(matrix, 30, tolerance=TOLERANCE))


def test_the_largest_element_of_each_left_vector_is_positive():
    for shape in ((600, 500), (500, 600), (600, 30)):
        left = truncated_svd(_sparse(*shape), 16).left
        assert (left[np.abs(left).argmax(axis=0), np.arange(16)] > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3000, 2500), (2500, 3000), (5000, 60)])
def test_the_same_bytes_come_again_on_any_number_of_threads(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch):
    matrix = _sparse(*shape)
    result = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(module, "usable_cores", lambda threads=threads: threads)
        with threadpool_limits(threads):
            result.append(truncated_svd(matrix, 48))
    for other in result[1:]:
        assert other.left.tobytes() == result[0].left.tobytes()
        assert other.values.tobytes() == result[0].values.tobytes()
        assert other.right.tobytes() == result[0].right.tobytes()


def test_another_start_gives_the_same_within_the_tolerance():
    matrix = _of_values(0.9 ** np.arange(400.0), 500, 400)
    one, other = (truncated_svd(matrix, 20, seed=seed) for seed in (0, 1))
    assert one.left.tobytes() != other.left.tobytes()
    assert np.allclose(one.left * one.values, other.left * other.values, atol=1e-4)


@pytest.mark.slow
def test_each_pass_is_reported_and_a_smaller_tolerance_takes_more():
    advances: list[int] = []
    matrix = sparse.csr_matrix(sparse.diags(np.linspace(1, 2, 4000, dtype=np.float32)))
    rough = truncated_svd(matrix, 32, tolerance=1e-2, advance=advances.append)
    assert sum(advances) == rough.passes
    assert truncated_svd(matrix, 32, tolerance=1e-5).passes > rough.passes


def test_too_few_passes_for_the_tolerance_show_in_the_residual():
    result = truncated_svd(_sparse(1200, 1000), 32, max_passes=12)
    assert result.passes == 12
    assert result.residual > 1e-5


def test_the_matrix_is_not_copied():
    matrix = _sparse(4000, 3000, 0.3)
    tracemalloc.start()
    truncated_svd(matrix, 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    bases = basis_width(4) * sum(matrix.shape) * 4
    assert peak < bases + matrix.data.nbytes
