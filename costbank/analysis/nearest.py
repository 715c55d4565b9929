"""The neighbors of a sample of tokens, among the tokens that several banks have in common."""

import numpy as np
from jaxtyping import Float32, Int64

from costbank.analysis.agreement import Reader
from costbank.bank import Bank
from costbank.neighbors.table import exact_nearest
from costbank.progress import Progress

__all__ = ["nearest_common", "sampled_positions"]

_BLOCK_TOKENS = 512


def sampled_positions(tokens: int, most: int, random: np.random.Generator) -> Int64[np.ndarray, "sampled"]:
    """The ascending positions of `most` of the tokens, or of all if there are not more."""
    if tokens <= most:
        return np.arange(tokens)
    return np.sort(random.choice(tokens, most, replace=False))


def nearest_common(
    bank: Bank, read: Reader, tokens: int, sample: Int64[np.ndarray, "sampled"], k: int, progress: Progress
) -> tuple[Int64[np.ndarray, "sampled k"], Float32[np.ndarray, "sampled k"]]:
    """Positions and costs of the k nearest common tokens of each sampled token.

    Args:
        bank: the bank; its pages are released after each block.
        read: returns the bank's rows by the positions of common tokens.
        tokens: the number of common tokens.
        sample: the positions of the tokens whose neighbors are searched.
        k: neighbors per token.
        progress: receives the number of sampled tokens.
    """
    positions = np.arange(tokens)
    blocks = []
    with progress.step(f"nearest tokens in {bank.name}@{bank.id[:4]}", len(sample), "tokens") as step:
        for start in range(0, len(sample), _BLOCK_TOKENS):
            block = sample[start : start + _BLOCK_TOKENS]
            blocks.append(exact_nearest(read, positions, block, k))
            bank.release()
            step.advance(len(block))
    return np.concatenate([ids for ids, _ in blocks]), np.concatenate([costs for _, costs in blocks])
