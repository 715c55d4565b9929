"""Two Triton kernels with a program for each row of logits: one for its sums, and one for its gradient.

    row_sums       reads the logits once, and tiles of costs or targets: the largest logit and sums relative to it
    row_gradients  reads them once more, and writes the gradient: p_i (a + b κ_i) − q_i, and a few columns apart

Sums are in float32. Logits, tiles and the gradient can have any floating-point type. There are no atomic operations, so
two runs give the same bits. Under Triton's interpreter (TRITON_INTERPRET=1) the same code runs on CPU tensors.

Arguments of both, with t the label, and d_i = (z_i − largest) · inverse:

- `logits`: [rows, WIDTH]; each tensor of this shape has its stride after it;
- `labels`: [rows], the column of each label; −1 if it is not here;
- `costs`: a tile f [rows, WIDTH] of costs (COSTS), or of −⟨e_i, e_t⟩ for l_i = d_i + γ log s_i (LOG);
- `targets`, `factors`: a tile [rows, WIDTH] with weights q_i (TARGETS = 1), or with −⟨e_i, e_t⟩ (2), from which
  q_i = u_i exp(−κ_i · rate) with the factors u of the columns;
- `row_of`: [rows], the row of each program in the tiles;
- `rows`: their number; `cap`: the softcap (CAP); `inverse`: 1 / temperature; `power`: γ.

`row_sums` writes `out` [11, rows]: 0: the largest logit; 1: the label's, −inf if it is not here; 2: Σ exp d_i; 3:
Σ exp(d_i) f_i; 4, 5: the largest l_i, and Σ exp(l_i − it); 6, 7: Σ q_i and −Σ q_i d_i; 8: −Σ d_i; 9: −Σ exp(d_i) d_i;
10: 1 if another logit is the first of the largest. 2 to 5 and 9 leave out the label.

`row_gradients` gets `vectors` [7, rows]: the largest logit, prob, cost_factor, target_factor, floor, the gradient at
the label, and the largest l_i. It writes exp(d_i) (prob + cost_factor f_i) − target_factor q_i − floor to `out`, which
may be the logits; with LOG, q_i is exp(l_i − the largest). `kept` [rows], int8: 0 for rows whose gradient is 0. `near`,
`near_values` [rows, NEAR]: columns, distinct in a row, or −1; and what is added there. SLOPE: multiply by the slope of
the softcap.
"""

# Constants of the compiler are in capitals, as in Triton's own kernels. Its language has no types to check.
# ruff: noqa: N803
# pyright: reportUnboundVariable=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

__all__ = ["PRODUCTS", "WEIGHTS", "probe", "row_gradients", "row_sums"]

WEIGHTS, PRODUCTS = 1, 2
"""What the tile of targets has: weights q, or −⟨e_i, e_t⟩, from which weights exp(−κ_i / T) u_i are computed."""


@triton.jit
def _tanh(x):
    # The quotient has no precision near 0, where three terms of the series have it all.
    size = tl.abs(x)
    small = tl.exp(-2.0 * size)
    far = tl.where(x < 0, -1.0, 1.0) * (1.0 - small) / (1.0 + small)
    square = x * x
    return tl.where(size < 0.06, x * (1.0 - square * (1.0 / 3.0 - square * (2.0 / 15.0))), far)


@triton.jit
def _load_logits(logits, columns, inside, cap, CAP: tl.constexpr):
    """Logits after the softcap in float32, −inf outside the row; and the softcap's slope."""
    x = tl.load(logits + columns, mask=inside, other=-float("inf")).to(tl.float32)
    slope = x
    if CAP:
        t = _tanh(x / cap)
        slope = 1.0 - t * t
        x = tl.where(x == -float("inf"), x, cap * t)
    return x, slope


@triton.jit
def _log_similarity(products, power):
    """γ log s_i with s_i = 1 − κ_i between 0 and 1; −inf for 0."""
    similar = tl.minimum(-products, 1.0)
    return tl.where(similar > 0.0, power * tl.log(tl.maximum(similar, 1e-37)), -float("inf"))


@triton.jit
def _target_weights(stored, x, factors, columns, inside, label, rate, TARGETS: tl.constexpr):
    """Weights of columns in the row's target distribution, from its tile."""
    weights = stored
    if TARGETS == 2:
        factor = tl.load(factors + columns, mask=inside, other=0.0).to(tl.float32)
        weights = factor * tl.exp(-rate * tl.maximum(1.0 + stored, 0.0))
        weights = tl.where((x == -float("inf")) | (columns == label), 0.0, weights)
    return weights


@triton.jit(do_not_specialize=["rows"])
def row_sums(
    logits, logits_stride, labels, costs, costs_stride, targets, targets_stride, factors, row_of, out, rows,
    cap, inverse, power, rate,
    WIDTH: tl.constexpr, CAP: tl.constexpr, COSTS: tl.constexpr, LOG: tl.constexpr, TARGETS: tl.constexpr,
    TOTAL: tl.constexpr, SPREAD: tl.constexpr, BEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the sums of a row: see the top of this file."""
    row = tl.program_id(0).to(tl.int64)
    label = tl.load(labels + row)
    here = label >= 0
    tile = tl.load(row_of + row)
    z, c, q = logits + row * logits_stride, costs + tile * costs_stride, targets + tile * targets_stride
    own, _own_slope = _load_logits(z, label, here, cap, CAP)
    top, others, cost, count = -float("inf"), 0.0, 0.0, 0.0
    log_top, log_sum, weight, nll, total, spread, beaten = -float("inf"), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for start in range(0, WIDTH, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < WIDTH
        x, _slope = _load_logits(z, columns, inside, cap, CAP)
        new = tl.maximum(top, tl.max(x, 0))
        shift = tl.where(new == -float("inf"), 0.0, new)
        # Sums so far are relative to the largest logit so far.
        rise = tl.where(top == -float("inf"), 0.0, (shift - top) * inverse)
        lower = tl.exp(-rise)
        d = (x - shift) * inverse
        is_other = inside & (columns != label)
        e = tl.where(is_other, tl.exp(d), 0.0)
        if SPREAD:
            spread = (spread + others * rise) * lower - tl.sum(e * tl.where(e > 0, d, 0.0), 0)
        others = others * lower + tl.sum(e, 0)
        if TOTAL:
            total += count * rise - tl.sum(tl.where(inside, d, 0.0), 0)
            count += tl.sum(inside.to(tl.float32), 0)
        if COSTS or LOG:
            f = tl.load(c + columns, mask=inside, other=0.0).to(tl.float32)
        if COSTS:
            cost = cost * lower + tl.sum(e * f, 0)
        if LOG:
            term = tl.where(is_other, d + _log_similarity(f, power), -float("inf"))
            log_top -= rise
            largest = tl.maximum(log_top, tl.max(term, 0))
            base = tl.where(largest == -float("inf"), 0.0, largest)
            log_sum = log_sum * tl.exp(log_top - base) + tl.sum(tl.exp(term - base), 0)
            log_top = largest
        if TARGETS:
            stored = tl.load(q + columns, mask=inside, other=0.0).to(tl.float32)
            w = _target_weights(stored, x, factors, columns, inside, label, rate, TARGETS)
            nll += weight * rise - tl.sum(w * tl.where(w > 0, d, 0.0), 0)
            weight += tl.sum(w, 0)
        if BEST:
            better = is_other & ((x > own) | ((x == own) & (columns < label)))
            beaten = tl.maximum(beaten, tl.max(better.to(tl.float32), 0))
        top = new
    _store(out, rows, row, top, own, others, cost, log_top, log_sum, weight, nll, total, spread, beaten)


@triton.jit
def _store(out, rows, row, top, own, others, cost, log_top, log_sum, weight, nll, total, spread, beaten):
    tl.store(out + row, top)
    tl.store(out + rows + row, own)
    tl.store(out + 2 * rows + row, others)
    tl.store(out + 3 * rows + row, cost)
    tl.store(out + 4 * rows + row, log_top)
    tl.store(out + 5 * rows + row, log_sum)
    tl.store(out + 6 * rows + row, weight)
    tl.store(out + 7 * rows + row, nll)
    tl.store(out + 8 * rows + row, total)
    tl.store(out + 9 * rows + row, spread)
    tl.store(out + 10 * rows + row, beaten)


@triton.jit
def _entries(
    x, columns, inside, label, c, q, factors, top, prob, cost_factor, target_factor, floor, log_top,
    inverse, power, rate,
    COSTS: tl.constexpr, LOG: tl.constexpr, TARGETS: tl.constexpr,
):  # fmt: skip
    """The gradient of some columns that are not the label, before the softcap's slope."""
    d = (x - top) * inverse
    e = tl.exp(d)
    g = e * prob - floor
    if COSTS or LOG:
        f = tl.load(c + columns, mask=inside, other=0.0).to(tl.float32)
    if COSTS:
        g += e * f * cost_factor
    if TARGETS:
        stored = tl.load(q + columns, mask=inside, other=0.0).to(tl.float32)
        g -= target_factor * _target_weights(stored, x, factors, columns, inside, label, rate, TARGETS)
    if LOG:
        # No l_i is larger, but that of the label may be.
        g -= target_factor * tl.exp(tl.minimum(d + _log_similarity(f, power) - log_top, 0.0))
    return g


@triton.jit(do_not_specialize=["rows"])
def row_gradients(
    logits, logits_stride, out, out_stride, labels, costs, costs_stride, targets, targets_stride, factors, row_of,
    vectors, rows, kept, near, near_values, cap, inverse, power, rate,
    WIDTH: tl.constexpr, CAP: tl.constexpr, COSTS: tl.constexpr, LOG: tl.constexpr, TARGETS: tl.constexpr,
    SLOPE: tl.constexpr, NEAR: tl.constexpr, NEAR_BLOCK: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the gradient of a row: see the top of this file."""
    row = tl.program_id(0).to(tl.int64)
    label = tl.load(labels + row)
    z, g_row = logits + row * logits_stride, out + row * out_stride
    tile = tl.load(row_of + row)
    c, q = costs + tile * costs_stride, targets + tile * targets_stride
    top = tl.load(vectors + row)
    prob = tl.load(vectors + rows + row)
    cost_factor = tl.load(vectors + 2 * rows + row)
    target_factor = tl.load(vectors + 3 * rows + row)
    floor = tl.load(vectors + 4 * rows + row)
    at_label = tl.load(vectors + 5 * rows + row)
    log_top = tl.load(vectors + 6 * rows + row)
    is_kept = tl.load(kept + row) != 0
    if NEAR:
        # Read before the logits are overwritten.
        entry = tl.arange(0, NEAR_BLOCK)
        near_columns = tl.load(near + row * NEAR + entry, mask=entry < NEAR, other=-1)
        is_near = (near_columns >= 0) & (near_columns != label)
        values = tl.load(near_values + row * NEAR + entry, mask=is_near, other=0.0)
        near_x, near_slope = _load_logits(z, near_columns, is_near, cap, CAP)
        values += _entries(near_x, near_columns, is_near, label, c, q, factors, top, prob, cost_factor, target_factor,
                           floor, log_top, inverse, power, rate, COSTS, LOG, TARGETS)  # fmt: skip
        if SLOPE:
            values *= near_slope
        values = tl.where(is_kept, values, 0.0)
        tl.debug_barrier()
    for start in range(0, WIDTH, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < WIDTH
        x, slope = _load_logits(z, columns, inside, cap, CAP)
        g = _entries(x, columns, inside, label, c, q, factors, top, prob, cost_factor, target_factor,
                     floor, log_top, inverse, power, rate, COSTS, LOG, TARGETS)  # fmt: skip
        g = tl.where(columns == label, at_label, g)
        if SLOPE:
            g *= slope
        g = tl.where(is_kept, g, 0.0)
        tl.store(g_row + columns, g.to(out.dtype.element_ty), mask=inside)
    if NEAR:
        tl.debug_barrier()
        tl.store(g_row + near_columns, values.to(out.dtype.element_ty), mask=is_near)


@triton.jit
def probe(out):
    """Write 1: whether kernels run at all."""
    tl.store(out, 1.0)
