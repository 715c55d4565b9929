"""New vectors as sparse sums of known vectors: by segmentation or by orthogonal matching pursuit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

__all__ = ["Sums", "matching_pursuit", "segment", "segmented_sums"]

_BLOCK_BYTES = 1 << 28
_RIDGE = 1e-7
_CONVERGED = 1e-5
_REPORT_TOKENS = 1_000


@dataclass(frozen=True)
class Sums:
    """Row i is Σ_j weights[i, j] · known[rows[i, j]]; a row of −1 ends a sum, and a sum may be empty."""

    rows: Int64[np.ndarray, "tokens terms"]
    weights: Float32[np.ndarray, "tokens terms"]

    @property
    def exists(self) -> Bool[np.ndarray, "tokens"]:
        """Which sums are not empty."""
        return np.any(self.rows >= 0, axis=1)

    def select(self, tokens: Bool[np.ndarray, "tokens"]) -> "Sums":
        """The sums of some tokens."""
        return Sums(self.rows[tokens], self.weights[tokens])


def segmented_sums(
    tokens: Sequence[bytes],
    rows: Mapping[bytes, int],
    counts: Int64[np.ndarray, "known"],
    advance: Callable[[int], None] = lambda _: None,
) -> Sums:
    """For each token, the mean of the known tokens that it is segmented into.

    The sum is empty if all pieces are single characters, because the mean of letters says nothing about a token.

    Args:
        tokens: the bytes of each token.
        rows: the row of each known token, by its bytes.
        counts: the number of occurrences of each known token, for the most likely segmentation. If a count is negative
            (unknown), the segmentation with the fewest pieces is used.
        advance: called with the number of tokens done since the last call.
    """
    used = np.fromiter(rows.values(), np.int64, len(rows))
    known = len(used) > 0 and bool((counts[used] >= 0).all())
    total = np.log(float(counts[used].sum() + len(used))) if known else 0
    costs = {word: float(total - np.log(counts[row] + 1.0)) if known else 1.0 for word, row in rows.items()}
    longest = max(map(len, rows), default=0)
    sums = []
    for number, token in enumerate(tokens, 1):
        pieces = segment(token, costs, longest)
        sums.append([rows[piece] for piece in pieces] if any(map(_has_several_characters, pieces)) else [])
        if number % _REPORT_TOKENS == 0:
            advance(_REPORT_TOKENS)
    advance(len(tokens) % _REPORT_TOKENS)
    terms = max(map(len, sums), default=0)
    sum_rows = np.full((len(tokens), terms), -1, np.int64)
    weights = np.zeros((len(tokens), terms), np.float32)
    for number, piece_rows in enumerate(sums):
        sum_rows[number, : len(piece_rows)] = piece_rows
        weights[number, : len(piece_rows)] = 1 / max(1, len(piece_rows))
    return Sums(sum_rows, weights)


def segment(token: bytes, costs: Mapping[bytes, float], longest: int) -> list[bytes]:
    """Segment a token into pieces with the minimum total cost; at equal costs, the last pieces are longest.

    Returns:
        The pieces; an empty list if the token has no segmentation.
    """
    best = [0.0] + [np.inf] * len(token)
    begins = [0] * (len(token) + 1)
    for end in range(1, len(token) + 1):
        for begin in range(max(0, end - longest), end):
            cost = best[begin] + costs.get(token[begin:end], np.inf)
            if cost < best[end]:
                best[end], begins[end] = cost, begin
    if not np.isfinite(best[-1]):
        return []
    pieces, end = [], len(token)
    while end:
        pieces.append(token[begins[end] : end])
        end = begins[end]
    return pieces[::-1]


def matching_pursuit(
    targets: Float32[np.ndarray, "targets dim"],
    atoms: Float32[np.ndarray, "atoms dim"],
    max_atoms: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Sums:
    """Orthogonal matching pursuit (Pati, Rezaiifar and Krishnaprasad 1993) of many targets at once.

    Each step adds to a sum the atom that is most parallel to the residual of its target, and recomputes the weights of
    all its atoms by least squares.

    Args:
        targets: the rows to approximate; the sum of a zero row is empty.
        atoms: the unit rows that sums consist of.
        max_atoms: the maximum number of atoms in a sum.
        advance: called with the number of targets done since the last call.
    """
    max_atoms = min(max_atoms, len(atoms))
    rows = np.full((len(targets), max_atoms), -1, np.int64)
    weights = np.zeros((len(targets), max_atoms), np.float32)
    step = max(1, _BLOCK_BYTES // (8 * len(atoms) + 16 * max_atoms * targets.shape[1] + 1))
    for start in range(0, len(targets), step):
        part = slice(start, min(start + step, len(targets)))
        _pursue(targets[part], atoms, rows[part], weights[part])
        advance(part.stop - part.start)
    return Sums(rows, weights)


def _pursue(targets: np.ndarray, atoms: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> None:
    """Fill `rows` and `weights` in place."""
    residuals = targets.copy()
    lengths = np.linalg.norm(targets, axis=1)
    active = np.flatnonzero(lengths > 0)
    for count in range(1, rows.shape[1] + 1):
        active = active[np.linalg.norm(residuals[active], axis=1) > _CONVERGED * lengths[active]]
        if not len(active):
            return
        cosines = np.abs(residuals[active] @ atoms.T)
        np.put_along_axis(cosines, rows[active, : count - 1], -1, axis=1)
        rows[active, count - 1] = cosines.argmax(axis=1)
        selected = atoms[rows[active, :count]].astype(np.float64)
        gram = selected @ selected.transpose(0, 2, 1) + _RIDGE * np.eye(count)
        products = np.einsum("tcd,td->tc", selected, targets[active])
        solution = np.linalg.solve(gram, products[..., None])[..., 0]
        weights[active, :count] = solution
        residuals[active] = targets[active] - np.einsum("tc,tcd->td", solution, selected)


def _has_several_characters(piece: bytes) -> bool:
    """Whether a piece has more than one character, not counting a leading space."""
    return len(piece.removeprefix(b" ").decode("utf-8", "replace")) > 1
