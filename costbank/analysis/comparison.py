"""How far two banks agree: the neighbors of tokens, the costs between tokens, and the rows as a whole."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

from costbank.analysis.agreement import Reader, cost_correlation, linear_cka, random_pairs
from costbank.analysis.counts import CountBand, bands_by_count, known_counts
from costbank.analysis.nearest import nearest_common, sampled_positions
from costbank.analysis.overlap import overlap, rank_biased_overlap
from costbank.analysis.words import ids_by_bytes
from costbank.bank import Bank, Neighbor
from costbank.cost import shortest_float
from costbank.errors import InputError, UsageError, require
from costbank.plurals import counted
from costbank.progress import Progress, QuietProgress

__all__ = ["BankComparison", "ComparedToken", "SampleSizes", "compare_banks"]

_SEED = 1
_LEAST_TOKENS = 3


@dataclass(frozen=True)
class ComparedToken:
    """The neighbors of one token in both banks, among their common tokens."""

    text: str
    first_id: int
    second_id: int
    overlap: float
    rank_biased_overlap: float
    first_neighbors: tuple[Neighbor, ...]
    second_neighbors: tuple[Neighbor, ...]


@dataclass(frozen=True)
class BankComparison:
    """How far two banks agree.

    Attributes:
        first, second: the banks, as name@id.
        same_tokenizer: whether tokens are matched by their ids; otherwise by their bytes.
        matched: the tokens that are in both vocabularies.
        common: those of them that have a vector in both banks; all measures are about these.
        k: the number of neighbors.
        sampled: the tokens whose neighbors were compared.
        overlap: the mean share of a token's k nearest common tokens that are the same in both banks.
        rank_biased_overlap: the same with more weight on the nearest (Webber et al. 2010, p = 0.9, extrapolated).
        pairs: the pairs of tokens whose costs were compared.
        pearson, spearman: the correlations of their costs; None if all costs in one bank are equal.
        cka_tokens: the tokens whose rows linear CKA compares.
        linear_cka: the similarity of the rows (Kornblith et al. 2019); None if all rows of one bank are equal.
        by_count: the agreement of neighbors by how often tokens occur in the corpus of the first bank that has counts;
            empty if none has.
        most_different: the sampled tokens whose neighbors differ most.
    """

    first: str
    second: str
    same_tokenizer: bool
    matched: int
    common: int
    k: int
    sampled: int
    overlap: float
    rank_biased_overlap: float
    pairs: int
    pearson: float | None
    spearman: float | None
    cka_tokens: int
    linear_cka: float | None
    by_count: tuple[CountBand, ...]
    most_different: tuple[ComparedToken, ...]


@dataclass(frozen=True)
class SampleSizes:
    """The largest numbers of tokens and pairs that are compared; larger banks are sampled with a fixed seed."""

    tokens: int = 5_000
    pairs: int = 100_000
    cka_tokens: int = 50_000


def compare_banks(
    first: Bank, second: Bank, k: int = 10, named: int = 10, progress: Progress | None = None,
    sizes: SampleSizes | None = None,
) -> BankComparison:  # fmt: skip
    """Compare two banks on the tokens that have a vector in both.

    Tokens of one tokenizer are matched by id. Ordinary tokens of different tokenizers are matched by their bytes.

    Args:
        first, second: the banks.
        k: how many neighbors of a token are compared, among the common tokens.
        named: how many of the tokens are listed whose neighbors differ most.
        progress: receives the number of tokens and pairs.
        sizes: how much is sampled.

    Raises:
        InputError: the banks have fewer than three tokens in common.
        UsageError: k is not between 1 and the number of other common tokens.
        MissingExtraError: FAISS or SciPy is not installed.
    """
    for library in ("faiss", "scipy.stats"):
        require(library, "build")
    progress, sizes = progress or QuietProgress(), sizes or SampleSizes()
    common = _Common(first, second)
    common.check_k(k)
    random = np.random.default_rng(_SEED)
    sample = sampled_positions(common.size, sizes.tokens, random)
    pairs = random_pairs(common.size, sizes.pairs, random)
    cka_sample = sampled_positions(common.size, sizes.cka_tokens, random)
    readers = common.reader(0), common.reader(1)
    nearest = [nearest_common(bank, read, common.size, sample, k, progress)
               for bank, read in zip((first, second), readers, strict=True)]  # fmt: skip
    ids, costs = [ids for ids, _ in nearest], [costs for _, costs in nearest]
    lists = list(zip(ids[0].tolist(), ids[1].tolist(), strict=True))
    overlaps = np.array([overlap(*pair) for pair in lists])
    ranked = np.array([rank_biased_overlap(*pair) for pair in lists])
    with progress.step("compare costs", pairs.shape[1], "pairs") as step:
        correlation = cost_correlation(*readers, pairs, step)
    with progress.step("linear CKA", len(cka_sample), "tokens") as step:
        cka = linear_cka(*readers, cka_sample, step)
    return BankComparison(
        first=f"{first.name}@{first.id}", second=f"{second.name}@{second.id}", same_tokenizer=common.same_tokenizer,
        matched=common.matched, common=common.size, k=k, sampled=len(sample), overlap=float(overlaps.mean()),
        rank_biased_overlap=float(ranked.mean()), pairs=pairs.shape[1], pearson=correlation.pearson,
        spearman=correlation.spearman, cka_tokens=len(cka_sample), linear_cka=cka,
        by_count=common.by_count(sample, overlaps, ranked),
        most_different=tuple(
            ComparedToken(
                *common.token(int(sample[i])),
                float(overlaps[i]),
                float(ranked[i]),
                common.neighbors(0, ids[0][i], costs[0][i]),
                common.neighbors(1, ids[1][i], costs[1][i]),
            )
            for i in _most_different(ids, overlaps, ranked)[:named]
        ),
    )  # fmt: skip


def _most_different(
    ids: list[Int64[np.ndarray, "sampled k"]], overlaps: Float64[np.ndarray, "sampled"],
    ranked: Float64[np.ndarray, "sampled"],
) -> list[int]:  # fmt: skip
    """The positions of tokens whose neighbors are not the same in the same order, the most different first."""
    order = np.lexsort((ranked, overlaps))
    return order[(ids[0] != ids[1]).any(axis=1)[order]].tolist()


class _Common:
    """The tokens that have a vector in both banks, by position."""

    def __init__(self, first: Bank, second: Bank) -> None:
        self._banks = first, second
        fingerprints = {bank.manifest.tokenizer.fingerprint for bank in self._banks}
        self.same_tokenizer = len(fingerprints) == 1 and first.size == second.size
        ids = np.tile(np.arange(first.size), (2, 1)) if self.same_tokenizer else _matched_by_bytes(first, second)
        self.matched = ids.shape[1]
        self._ids = ids[:, first.usable[ids[0]] & second.usable[ids[1]]]
        self.size = self._ids.shape[1]
        if self.size < _LEAST_TOKENS:
            held = counted(self.size, "token")
            raise InputError(
                f"{first.name} and {second.name} have {held} with a vector in common, but {_LEAST_TOKENS} are needed",
                "compare banks of one tokenizer, or of tokenizers that share tokens",
            )

    def check_k(self, k: int) -> None:
        if not 1 <= k < self.size:
            raise UsageError(
                f"k is {k}, but a token has {self.size - 1:,} other tokens with a vector in both banks",
                f"give a k from 1 to {self.size - 1:,}",
            )

    def reader(self, bank: int) -> Reader:
        ids, vectors = self._ids[bank], self._banks[bank].vectors
        return lambda positions: vectors(ids[positions])

    def by_count(
        self, sample: Int64[np.ndarray, "sampled"], overlaps: Float64[np.ndarray, "sampled"],
        ranked: Float64[np.ndarray, "sampled"],
    ) -> tuple[CountBand, ...]:  # fmt: skip
        if (known := known_counts(self._banks)) is None:
            return ()
        bank, counts = known
        return bands_by_count(counts[self._ids[bank, sample]], overlaps, ranked)

    def token(self, position: int) -> tuple[str, int, int]:
        """The text of a token, and its ids in both banks."""
        first_id, second_id = self._ids[:, position].tolist()
        return self._banks[0].vocab.display(first_id), first_id, second_id

    def neighbors(
        self, bank: int, positions: Int64[np.ndarray, "k"], costs: Float32[np.ndarray, "k"]
    ) -> tuple[Neighbor, ...]:
        ids, vocab = self._ids[bank, positions].tolist(), self._banks[bank].vocab
        return tuple(Neighbor(i, vocab.display(i), shortest_float(cost)) for i, cost in zip(ids, costs, strict=True))


def _matched_by_bytes(first: Bank, second: Bank) -> Int64[np.ndarray, "2 matched"]:
    """The ids of ordinary tokens with the same bytes, ascending in the first bank."""
    own, other = (ids_by_bytes(bank.vocab, np.ones(bank.size, bool)) for bank in (first, second))
    pairs = sorted((token_id, other[token]) for token, token_id in own.items() if token in other)
    return np.array(pairs, np.int64).reshape(-1, 2).T
