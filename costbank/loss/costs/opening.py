"""Open a bank's costs in one of the forms, or its distributions for label smoothing, for logits of a given width."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from costbank.bank import Bank
from costbank.errors import ShapeError, TokenizerError, UsageError
from costbank.loss.costs.base import Costs, check_type, check_without_rows
from costbank.loss.costs.dense import DenseCosts, LowRankCosts
from costbank.loss.costs.float8 import FLOAT8, Float8Rows
from costbank.loss.costs.neighbors import NeighborCosts
from costbank.loss.costs.smoothing import (
    DenseSmoothing,
    NeighborSmoothing,
    SmoothingOptions,
    draw_neighbors,
    smooth_dense,
    smooth_neighbors,
)
from costbank.vocab import TokenStatus, Vocab

__all__ = ["FORMS", "open_costs", "open_smoothing"]

FORMS = ("dense", "low-rank", "neighbors")

_MEASURED_PRODUCTS = 5e12
"""With more products, measuring the errors takes too long to be the default."""


def open_costs(
    bank: Bank,
    form: str = "dense",
    *,
    rank: int | None = None,
    k: int | None = None,
    vocab_size: int | None = None,
    vocab: Vocab | None = None,
    measure: bool | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    block_rows: int = 16_384,
) -> Costs:
    """Load a bank's costs for training.

    The `error` of what is returned describes how far its costs may be from the bank's.

    Args:
        bank: the bank; its row i is token id i.
        form: `dense`: exact. `low-rank`: projections onto `rank` dimensions. `neighbors`: the costs of each token's
            `k` nearest, and one mean cost for all others. The last two report their largest error.
        rank: for `low-rank`; default: 256, or all dimensions if there are fewer.
        k: for `neighbors`; default: the columns of the bank's table.
        vocab_size: the width of the logits; default: the bank's size. Ids beyond the bank (the padding of a model's
            head) cost 1 to every token. With fewer ids, the bank's last rows are dropped.
        vocab: the vocabulary of the model's tokenizer; it is an error if the bank is for another tokenizer.
        measure: for `neighbors`, compute all costs once to find the largest error; default: only if that takes at most
            5e12 products.
        device: the device of the costs. Dense rows are copied to it block by block, so no other device holds
            all of them.
        dtype: the type of the vectors, or of the neighbors' costs; default: float32. See `Costs.to`. Dense and low-rank
            costs can have `torch.float8_e4m3fn`, a byte for each number of a row; `rounding_error` is then measured.
        block_rows: rows that are read from the bank at a time.

    Raises:
        UsageError: the form does not exist, a setting belongs to another form, k exceeds the bank's table, or costs of
            this form cannot have `dtype` on this device.
        ShapeError: `vocab_size`, `rank` or `k` is out of range.
        TokenizerError: the bank is for another tokenizer.
    """
    check_type(dtype, device)
    if form not in FORMS:
        raise UsageError(f"form is {form!r}", f"give one of: {', '.join(FORMS)}")
    if form == "neighbors":
        check_without_rows(form, dtype)
    for name, value, owner in (("rank", rank, "low-rank"), ("k", k, "neighbors"), ("measure", measure, "neighbors")):
        if value is not None and form != owner:
            raise UsageError(f"{name}={value} does not apply to form={form!r}", f"omit it, or use form={owner!r}")
    width = _width(bank, vocab_size, vocab)
    if form == "dense":
        return _dense(bank, width, block_rows, device, dtype)
    if form == "low-rank":
        costs = LowRankCosts.project(
            _dense(bank, width, block_rows, device), min(256, bank.dim) if rank is None else rank
        )
    else:
        costs = _neighbors(bank, _dense(bank, width, block_rows), k, measure)
    return costs.to(device, dtype)


def open_smoothing(
    bank: Bank,
    options: SmoothingOptions | None = None,
    *,
    vocab_size: int | None = None,
    vocab: Vocab | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    rank: int | None = None,
    **changes: Any,
) -> DenseSmoothing | NeighborSmoothing:
    """Open a bank for the objective `neighbor_smoothing`: choose the temperature of the distributions of labels.

    Over all tokens, reads the vectors; over k neighbors, reads only the neighbor table.

    Args:
        bank: the bank; its row i is token id i.
        options: the number of neighbors, and how their costs become a distribution.
        vocab_size: the width of the logits; default: the bank's size. Ids beyond the bank keep their whole label. With
            fewer ids, the bank's last tokens are dropped, and labels have their shares.
        vocab: the vocabulary of the model's tokenizer; it is an error if the bank is for another tokenizer.
        device: the device of the vectors or distributions.
        dtype: their type; default: float32. Over all tokens, without draws, also `torch.float8_e4m3fn` (see
            `open_costs`).
        rank: over all tokens, use projections of the vectors onto this many dimensions.
        **changes: single options by name, such as `perplexity=200`.

    Raises:
        UsageError: an option is out of range, k exceeds the bank's table, or the bank has no counts for
            `unigram_power` or `exempt_most_frequent`; or distributions cannot have `dtype` on this device.
        ShapeError: `vocab_size` is out of range.
        TokenizerError: the bank is for another tokenizer.
    """
    check_type(dtype, device)
    options = replace(options or SmoothingOptions(), **changes)
    if options.k is not None or options.draws is not None:
        check_without_rows("smoothing", dtype)
    width = _width(bank, vocab_size, vocab)
    _check_counts(bank, options)
    tokens: dict[str, Any] = {
        "counts": torch.from_numpy(_fitted(bank.vocab.counts, width)),
        "exempt": torch.from_numpy(_fitted(_exempt(bank.vocab, options), width)),
    }
    if options.k is None:
        dense = _dense(bank, width, block_rows=16_384)
        if rank is not None:
            dense = LowRankCosts.project(dense, rank)
        smoothing = smooth_dense(dense, options, **tokens)
        if options.draws is not None:
            return draw_neighbors(smoothing.to(device), options.draws, options.seed).to(device, dtype)
        return smoothing.to(device, dtype)
    if rank is not None:
        raise UsageError(f"rank is {rank}, and k is {options.k}", "omit one of them: neighbors have no vectors")
    ids, costs = _table(bank, width, options.k, "k=None for all tokens")
    smoothing = smooth_neighbors(
        torch.from_numpy(ids), torch.from_numpy(costs), options, bank=f"{bank.name}@{bank.id}", **tokens
    )
    return smoothing.to(device, dtype)


def _check_counts(bank: Bank, options: SmoothingOptions) -> None:
    needing = [name for name in ("unigram_power", "exempt_most_frequent") if getattr(options, name)]
    if needing and (bank.vocab.counts < 0).all():
        raise UsageError(
            f"{needing[0]} needs the tokens' counts, and {bank.name}@{bank.id} has none",
            "use a bank from a corpus, or omit it",
        )


def _exempt(vocab: Vocab, options: SmoothingOptions) -> np.ndarray:
    """Whether each token is exempt from smoothing."""
    exempt = np.zeros(vocab.size, np.bool_)
    statuses = {"special": (TokenStatus.SPECIAL, TokenStatus.UNUSED), "byte": (TokenStatus.BYTE,)}
    for name in options.exempt:
        if name == "digit":
            exempt |= np.array([vocab.token(i).strip().isdigit() for i in range(vocab.size)], np.bool_)
        else:
            exempt |= np.isin(vocab.status, statuses[name])
    if options.exempt_most_frequent:
        exempt[np.argsort(-vocab.counts, kind="stable")[: options.exempt_most_frequent]] = True
    return exempt


def _fitted(values: np.ndarray, width: int) -> np.ndarray:
    """The values of the first `width` tokens; 0 for ids beyond the bank."""
    fitted = np.zeros(width, values.dtype)
    fitted[: len(values)] = values[:width]
    return fitted


def _width(bank: Bank, vocab_size: int | None, vocab: Vocab | None) -> int:
    """The width of the logits, after a check of the tokenizer."""
    if vocab is not None:
        _check_vocab(bank, vocab)
    width = bank.size if vocab_size is None else vocab_size
    if width < 1:
        raise ShapeError(f"vocab_size is {width}", "give the width of the logits")
    return width


def _dense(
    bank: Bank,
    width: int,
    block_rows: int,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> DenseCosts:
    name = f"{bank.name}@{bank.id}"
    blocks = (
        (start, torch.tensor(bank.vectors(slice(start, min(start + block_rows, width)))))
        for start in range(0, min(width, bank.size), block_rows)
    )
    if dtype == FLOAT8:
        narrow = Float8Rows(width, bank.dim, device)
        for start, block in blocks:
            narrow.put(start, block)
            bank.release()
        return DenseCosts(narrow.vectors, bank=name, scales=narrow.scales, rounding_error=narrow.error)
    rows = torch.zeros(width, bank.dim, device=device, dtype=dtype or torch.float32)
    for start, block in blocks:
        rows[start : start + len(block)] = block
        bank.release()
    return DenseCosts(rows, bank=name)


def _neighbors(bank: Bank, dense: DenseCosts, k: int | None, measure: bool | None) -> NeighborCosts:
    width = dense.vocab_size
    ids, costs = _table(bank, width, k, "form='dense'")
    if measure is None:
        measure = float(width) ** 2 * bank.dim <= _MEASURED_PRODUCTS
    return NeighborCosts.from_table(dense, torch.from_numpy(ids), torch.from_numpy(costs), measure)


def _table(bank: Bank, width: int, k: int | None, without_table: str) -> tuple[np.ndarray, np.ndarray]:
    """The ids [width, k] and costs of each token's nearest that the logits have; −1 and ∞ if there are fewer."""
    table = bank.neighbors
    k = table.k if k is None else k
    if not 1 <= k <= table.k:
        raise UsageError(
            f"k is {k}, but the table of {bank.name}@{bank.id} has {table.k} neighbors per token",
            f"give 1 to {table.k}, or build the bank with --set neighbors.k={max(k, 1)}"
            if table.k
            else f"build the bank with --set neighbors.k=64, or use {without_table}",
        )
    ids = np.full((width, k), -1, np.int32)
    costs = np.full((width, k), np.inf, np.float32)
    ids[: bank.size], costs[: bank.size] = table.ids[:width, :k], table.costs[:width, :k]
    # If the logits are narrower than the bank, they lack some neighbors.
    missing = ids >= width
    ids[missing], costs[missing] = -1, np.inf
    # The other neighbors move up, because a neighbor's column is its rank.
    order = np.argsort(ids < 0, axis=1, kind="stable")
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(costs, order, axis=1)


def _check_vocab(bank: Bank, vocab: Vocab) -> None:
    if vocab.fingerprint == bank.manifest.tokenizer.fingerprint:
        return
    shared = min(vocab.size, bank.size)
    differing = [i for i in range(shared) if vocab.token(i) != bank.vocab.token(i)]
    # One of the two may have padding ids, which have no bytes.
    if (
        not differing
        and vocab.offsets[-1] == vocab.offsets[shared]
        and bank.vocab.offsets[-1] == bank.vocab.offsets[shared]
    ):
        return
    shown = ", ".join(f"{i} ({vocab.display(i)}, in the bank {bank.vocab.display(i)})" for i in differing[:3])
    raise TokenizerError(
        f"the tokenizer has {vocab.size:,} tokens, but {bank.name}@{bank.id} is for another one, with {bank.size:,}"
        + (f"; {len(differing):,} ids differ, the first: {shown}" if differing else ""),
        "build a bank for this tokenizer; costbank build --source transfer converts this bank to it",
    )
