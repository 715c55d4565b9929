"""Transfer the vectors of a donor bank to another tokenizer, token by token.

A token takes the row of the donor's token with the same bytes (even if it is special), or else of the one that differs
only by a leading space. The other tokens become sums of donor rows: the mean of their pieces in the donor's vocabulary,
or a sum by orthogonal matching pursuit (Pati et al. 1993) in a second space of all tokens of the new tokenizer, as in
Goddard and Fernandes Neto (2025). The quality of such sums is measured on shared tokens that are held out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from costbank.bank import Bank, check_digests
from costbank.bank.layout import TOKENS, VECTORS
from costbank.errors import InputError, UsageError, require
from costbank.neighbors import nearest_to
from costbank.opening import open_bank
from costbank.plurals import counted
from costbank.progress import Progress
from costbank.sources.base import InputFile, SourcePlan, SourceVectors, configured_tokenizer, row_ranges
from costbank.sources.matching import Match, Matches, match_tokens, rows_of_vocab, same_bytes
from costbank.sources.spelling.settings import SpellingConfig
from costbank.sources.transfer.combining import Sums, matching_pursuit, segmented_sums
from costbank.sources.transfer.settings import TransferBuild
from costbank.tokenizers import Tokenizer
from costbank.transforms import normalize
from costbank.vocab import TokenStatus, Vocab

__all__ = ["plan"]

sparse = require("scipy.sparse", "build")

_HELD_OUT = 1_000
_HELD_OUT_SHARE = 10
_OVERLAP_AT = 10
_SEED = 0
_ADVICE = (
    "The vectors are those of the donor bank; see its card. Tokens that the donor lacks are sums of its rows; the "
    "held-out figures above show how close such sums are to the true rows of tokens that the donor has."
)


def plan(config: TransferBuild) -> SourcePlan:
    """Open the donor and any guide, and match the vocabularies.

    Raises:
        UsageError: no donor or no tokenizer is named, or a guide is named and the method is not `omp`.
        BankNotFoundError, CorruptBankError: see `open_bank`.
        InputError: the guide is a bank of another tokenizer, or the vocabularies share fewer than two tokens.
        InputNotFoundError, TokenizerError: see `load_tokenizer`.
    """
    settings = config.transfer
    if settings.donor is None:
        raise UsageError("the source transfer needs a donor bank", "name one with --donor BANK")
    if settings.guide is not None and settings.method != "omp":
        raise UsageError(
            f"transfer.guide has no effect with transfer.method={settings.method}",
            "use --set transfer.method=omp, or remove transfer.guide",
        )
    donor = open_bank(settings.donor, config.store)
    tokenizer = configured_tokenizer(config)
    guide = open_bank(settings.guide, config.store) if settings.guide else None
    if guide and guide.manifest.tokenizer.fingerprint != tokenizer.vocab.fingerprint:
        raise InputError(
            f"the guide {guide.name}@{guide.id} is a bank of a tokenizer other than {tokenizer.file}",
            "build a bank for this tokenizer to guide the transfer",
        )
    rows = rows_of_vocab(donor.vocab, donor.usable)
    matches = match_tokens(tokenizer.vocab, rows, Match.WORD_START)
    if (shared := int((matches.rows >= 0).sum())) < 2:
        raise InputError(
            f"{donor.name} and {tokenizer.file} have {counted(shared, 'token')} in common",
            "use a donor for the same languages",
        )
    matches = _with_same_bytes(matches, same_bytes(tokenizer.vocab, donor.vocab, donor.usable))
    transfer = _Transfer(config, donor, guide, tokenizer, matches, rows)
    return SourcePlan(tokenizer, (tokenizer.vocab.size, donor.dim), transfer.make, ("numpy", "scipy"), _ADVICE)


@dataclass(frozen=True)
class _Transfer:
    config: TransferBuild
    donor: Bank
    guide: Bank | None
    tokenizer: Tokenizer
    matches: Matches
    donor_rows: dict[bytes, int]

    def make(self, progress: Progress) -> SourceVectors:
        inputs = [_checked(bank) for bank in (self.donor, self.guide) if bank]
        vocab, matches = self.tokenizer.vocab, self.matches
        new = np.flatnonzero(vocab.ordinary & (matches.how == Match.NONE))
        space = self._space(progress)
        sums = self._sums(new, np.zeros(vocab.size, bool), space, progress)
        quality = self._quality(space, progress)
        weights = _weights(vocab.size, self.donor.size, matches, new, sums)
        combined = int(sums.exists.sum())
        facts = {
            "donor": f"{self.donor.name}@{self.donor.id}",
            "exact": matches.count(Match.EXACT),
            "with_or_without_space": matches.count(Match.WORD_START),
            "combined": combined,
            "without_vector": len(new) - combined,
            **quality,
        }
        progress.note(_breakdown(facts, vocab.size))
        return SourceVectors(vocab, _Weighted(self.donor, weights), facts, lambda: tuple(inputs), origin="the donor")

    def _space(self, progress: Progress) -> Float32[np.ndarray, "vocab dim"] | None:
        """For matching pursuit, unit vectors of all tokens of the new tokenizer; None for the other method."""
        if self.config.transfer.method != "omp":
            return None
        if self.guide:
            return self.guide.vectors(slice(0, self.tokenizer.vocab.size))
        from costbank.sources.spelling.plan import spelling_vectors

        vocab, settings = self.tokenizer.vocab, SpellingConfig()
        rows, _ = spelling_vectors(vocab, settings, min(settings.dim, vocab.size - 1), progress)
        return normalize(rows)[0]

    def _sums(
        self,
        tokens: Int64[np.ndarray, "tokens"],
        held_out: Bool[np.ndarray, "vocab"],
        space: Float32[np.ndarray, "vocab dim"] | None,
        progress: Progress,
    ) -> Sums:
        """Sums of donor rows for some tokens, without the rows of held-out tokens."""
        vocab, matches = self.tokenizer.vocab, self.matches
        excluded = set(matches.rows[held_out].tolist())
        if space is None:
            rows = {word: row for word, row in self.donor_rows.items() if row not in excluded}
            with progress.step("segment", len(tokens), "tokens") as step:
                texts = [vocab.token(token_id) for token_id in tokens.tolist()]
                return segmented_sums(texts, rows, self.donor.vocab.counts, step.advance)
        # Text has no special tokens, so sums do not include them.
        shared = np.flatnonzero((matches.rows >= 0) & vocab.ordinary & space.any(axis=1))
        shared = shared[~np.isin(matches.rows[shared], list(excluded))]
        with progress.step("matching pursuit", len(tokens), "tokens") as step:
            sums = matching_pursuit(space[tokens], space[shared], self.config.transfer.atoms, step.advance)
        return Sums(np.where(sums.rows >= 0, matches.rows[shared][sums.rows], -1), sums.weights)

    def _quality(self, space: Float32[np.ndarray, "vocab dim"] | None, progress: Progress) -> dict[str, Any]:
        """Compute the sums of known tokens as if they were new, and compare them with the donor's rows."""
        vocab, matches = self.tokenizer.vocab, self.matches
        lengths = np.diff(vocab.offsets)
        shared = np.flatnonzero((matches.how == Match.EXACT) & (vocab.status == TokenStatus.OK) & (lengths > 2))
        sample = np.random.default_rng(_SEED).permutation(shared)[: min(_HELD_OUT, len(shared) // _HELD_OUT_SHARE)]
        held_out = np.zeros(vocab.size, bool)
        held_out[sample] = True
        held_out[[i for token in sample.tolist() for i in _variants(vocab, token)]] = True
        sums = self._sums(sample, held_out, space, progress)
        sample, sums = sample[sums.exists], sums.select(sums.exists)
        if not len(sample):
            return {"held_out": 0}
        true = self.donor.vectors(matches.rows[sample])
        summed = normalize(_weighted(self.donor, _as_matrix(sums, self.donor.size)))[0]
        others = self.donor.usable.copy()
        others[matches.rows[held_out & (matches.rows >= 0)]] = False
        nearest = [nearest_to(rows, self.donor.vectors, others, _OVERLAP_AT).tolist() for rows in (true, summed)]
        overlap = [len(set(a) & set(b)) / len(a) for a, b in zip(*nearest, strict=True)]
        shuffled = np.einsum("rd,rd->r", true, np.roll(summed, 1, axis=0))
        return {
            "held_out": len(sample),
            "held_out_cosine": round(float(np.einsum("rd,rd->r", true, summed).mean()), 4),
            "held_out_chance_cosine": round(float(shuffled.mean()), 4),
            "held_out_overlap": round(float(np.mean(overlap)), 4),
        }


@dataclass(frozen=True)
class _Weighted:
    """The new rows in the order of ids: sums of donor rows."""

    donor: Bank
    weights: Any

    def __iter__(self) -> Iterator[Float32[np.ndarray, "rows dim"]]:
        for start, stop in row_ranges(self.weights.shape[0], 4 * self.donor.dim):
            yield _weighted(self.donor, self.weights[start:stop])


def _with_same_bytes(matches: Matches, exact: Int64[np.ndarray, "vocab"]) -> Matches:
    """The matches, with exact matches where there are any."""
    return Matches(np.where(exact >= 0, exact, matches.rows), np.where(exact >= 0, Match.EXACT, matches.how))


def _weighted(donor: Bank, weights: Any) -> Float32[np.ndarray, "rows dim"]:
    """The product of a sparse matrix and the donor's rows; only rows with a weight are read."""
    used = np.unique(weights.indices)
    if not len(used):
        return np.zeros((weights.shape[0], donor.dim), np.float32)
    return np.asarray(weights[:, used] @ donor.vectors(used.astype(np.int64)), np.float32)


def _weights(vocab_size: int, donor_size: int, matches: Matches, new: np.ndarray, sums: Sums) -> Any:
    """The weights of donor rows in each new row: a `scipy.sparse.csr_matrix` of float32 [new, donor]."""
    matched = np.flatnonzero(matches.rows >= 0)
    token, term = np.nonzero(sums.rows >= 0)
    rows = np.concatenate([matched, new[token]])
    columns = np.concatenate([matches.rows[matched], sums.rows[token, term]])
    values = np.concatenate([np.ones(len(matched), np.float32), sums.weights[token, term]])
    return sparse.csr_matrix((values, (rows, columns)), (vocab_size, donor_size))


def _as_matrix(sums: Sums, donor_size: int) -> Any:
    no_matches = Matches(np.full(len(sums.rows), -1), np.zeros(len(sums.rows), np.uint8))
    return _weights(len(sums.rows), donor_size, no_matches, np.arange(len(sums.rows)), sums)


def _variants(vocab: Vocab, token_id: int) -> list[int]:
    """The ids with the token's bytes, with or without a leading space."""
    word = vocab.token(token_id).removeprefix(b" ")
    return [*vocab.ids_of(word), *vocab.ids_of(b" " + word)]


def _checked(bank: Bank) -> InputFile:
    """Check the digests of the bank's files that will be read, and return its vectors as an input."""
    check_digests(bank, (TOKENS, VECTORS))
    return bank.manifest.files[VECTORS].named(f"{bank.name}@{bank.id}")


def _breakdown(facts: dict[str, Any], size: int) -> str:
    parts = (
        f"of {size:,} tokens, {facts['exact']:,} match a token of the donor exactly, "
        f"{facts['with_or_without_space']:,} match one with or without a leading space, {facts['combined']:,} are sums "
        f"of its rows, {facts['without_vector']:,} have no vector"
    )
    if not facts["held_out"]:
        return f"{parts}; too few tokens are shared to measure the sums on held-out tokens"
    return (
        f"{parts}; for {facts['held_out']:,} held-out tokens, such sums have a mean cosine of "
        f"{facts['held_out_cosine']} to the true rows ({facts['held_out_chance_cosine']} by chance) and share "
        f"{facts['held_out_overlap']:.0%} of the {_OVERLAP_AT} nearest tokens"
    )
