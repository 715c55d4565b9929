"""New vectors as sparse sums of known ones: by segmentation, or by orthogonal matching pursuit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

__all__ = ["Sums", "matching_pursuit", "segment", "segmented_sums"]

_BLOCK_BYTES = 1 << 28
_RIDGE = 1e-7
_NO_MORE = 1e-5
_REPORT_TOKENS = 1_000


@dataclass(frozen=True)
class Sums:
    """Row i is Σ_j weights[i, j] · known[rows[i, j]]; −1 ends a sum, and one without any row was not found."""

    rows: Int64[np.ndarray, "tokens most"]
    weights: Float32[np.ndarray, "tokens most"]

    @property
    def found(self) -> Bool[np.ndarray, "tokens"]:
        return np.any(self.rows >= 0, axis=1)

    def only(self, chosen: Bool[np.ndarray, "tokens"]) -> "Sums":
        return Sums(self.rows[chosen], self.weights[chosen])


def segmented_sums(
    tokens: Sequence[bytes],
    rows: Mapping[bytes, int],
    counts: Int64[np.ndarray, "known"],
    advance: Callable[[int], None] = lambda _: None,
) -> Sums:
    """The mean over each token's pieces among known tokens.

    A token that falls into single characters only is not found: the mean of its letters would say nothing of it.

    Args:
        tokens: the bytes of each.
        rows: the row of each known token, by its bytes.
        counts: how often each row's token occurred; where that is not known of all, the fewest pieces decide.
        advance: told how many tokens are done.
    """
    used = np.fromiter(rows.values(), np.int64, len(rows))
    known = len(used) > 0 and bool((counts[used] >= 0).all())
    total = np.log(float(counts[used].sum() + len(used))) if known else 0
    costs = {word: float(total - np.log(counts[row] + 1.0)) if known else 1.0 for word, row in rows.items()}
    longest = max(map(len, rows), default=0)
    found = []
    for number, token in enumerate(tokens, 1):
        pieces = segment(token, costs, longest)
        found.append([rows[piece] for piece in pieces] if any(map(_says_something, pieces)) else [])
        if number % _REPORT_TOKENS == 0:
            advance(_REPORT_TOKENS)
    advance(len(tokens) % _REPORT_TOKENS)
    most = max(map(len, found), default=0)
    table = np.full((len(tokens), most), -1, np.int64)
    weights = np.zeros((len(tokens), most), np.float32)
    for place, pieces in enumerate(found):
        table[place, : len(pieces)] = pieces
        weights[place, : len(pieces)] = 1 / max(1, len(pieces))
    return Sums(table, weights)


def segment(token: bytes, costs: Mapping[bytes, float], longest: int) -> list[bytes]:
    """The pieces of least total cost that make up the token, of equals the one with the longer last pieces; or none."""
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
    most: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Sums:
    """Orthogonal matching pursuit (Pati, Rezaiifar and Krishnaprasad 1993) of many targets at once.

    Again and again the atom that is most parallel to what is left of a target joins its sum, and the weights of all its
    atoms become those of least squares.

    Args:
        targets: what to approximate; zero rows are not found.
        atoms: unit rows to make sums of.
        most: atoms in a sum, at most.
        advance: told how many targets are done.
    """
    most = min(most, len(atoms))
    rows = np.full((len(targets), most), -1, np.int64)
    weights = np.zeros((len(targets), most), np.float32)
    step = max(1, _BLOCK_BYTES // (8 * len(atoms) + 16 * most * targets.shape[1] + 1))
    for start in range(0, len(targets), step):
        part = slice(start, min(start + step, len(targets)))
        _pursue(targets[part], atoms, rows[part], weights[part])
        advance(part.stop - part.start)
    return Sums(rows, weights)


def _pursue(targets: np.ndarray, atoms: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> None:
    """Fill `rows` and `weights` in place."""
    left = targets.copy()
    lengths = np.linalg.norm(targets, axis=1)
    going = np.flatnonzero(lengths > 0)
    for count in range(1, rows.shape[1] + 1):
        going = going[np.linalg.norm(left[going], axis=1) > _NO_MORE * lengths[going]]
        if not len(going):
            return
        parallel = np.abs(left[going] @ atoms.T)
        np.put_along_axis(parallel, rows[going, : count - 1], -1, axis=1)
        rows[going, count - 1] = parallel.argmax(axis=1)
        chosen = atoms[rows[going, :count]].astype(np.float64)
        gram = chosen @ chosen.transpose(0, 2, 1) + _RIDGE * np.eye(count)
        aims = np.einsum("tcd,td->tc", chosen, targets[going])
        solved = np.linalg.solve(gram, aims[..., None])[..., 0]
        weights[going, :count] = solved
        left[going] = targets[going] - np.einsum("tc,tcd->td", solved, chosen)


def _says_something(piece: bytes) -> bool:
    """Whether a piece is more than one character, the space before it apart."""
    return len(piece.removeprefix(b" ").decode("utf-8", "replace")) > 1
