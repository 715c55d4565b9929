"""Pairs counted by windows, compared with counting one by one."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from costbank.corpus import EncodedCorpus
from costbank.corpus.entries import read_entry, write_entry
from costbank.engines import open_engine
from costbank.errors import CorpusError
from costbank.files import locked
from costbank.progress import QuietProgress
from costbank.sources.cooccurrence.counting import CountShard, CountSizes, Span, count_shard, pair_weights
from costbank.sources.cooccurrence.packing import PairPacking, fold_pairs
from costbank.sources.cooccurrence.pair_counts import PairCounts, count_pairs
from costbank.sources.cooccurrence.runs import merge_segments, merge_shards, read_run
from tests.unit.recorded_progress import RecordedProgress

QUIET = QuietProgress()
DOCUMENTS = st.lists(st.lists(st.integers(0, 9), max_size=30), min_size=1, max_size=8)


def _one_by_one(documents: list[list[int]], weights: tuple[int, ...]) -> Counter:
    counts = Counter()
    for document in documents:
        for at, token in enumerate(document):
            for distance, weight in enumerate(weights, 1):
                if at + distance < len(document):
                    counts[tuple(sorted((token, document[at + distance])))] += weight
    return counts


def make_corpus(place: Path, documents: list[list[int]], parts: int = 1, vocab_size: int = 10) -> EncodedCorpus:
    entries = []
    for number in range(parts):
        chosen = documents[number::parts]
        ids = np.array([i for document in chosen for i in document], np.uint16)
        ends = np.cumsum([len(document) for document in chosen], dtype=np.int64)
        path = place / f"part{number}-{np.random.default_rng().integers(1 << 60)}"
        write_entry(path, place / "staging", [(ids, ends)], np.dtype("<u2"), dict)
        entries.append(read_entry(path))
    return EncodedCorpus((), tuple(entries), vocab_size)


def as_counter(counts: PairCounts) -> Counter:
    counter = Counter()
    for first, second, weight in counts:
        for a, b, n in zip(first.tolist(), second.tolist(), weight.tolist(), strict=True):
            assert (a, b) not in counter
            counter[a, b] = n
    return counter


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    documents=DOCUMENTS,
    window=st.integers(1, 12),
    flat=st.booleans(),
    chunk=st.integers(1, 40),
    parts=st.integers(1, 3),
)
def test_counts_are_those_of_counting_one_by_one(
    tmp_path: Path, documents: list[list[int]], window: int, flat: bool, chunk: int, parts: int
):
    """Chunks, spans and parts of any size give the same counts; windows do not cross documents."""
    corpus, weights = make_corpus(tmp_path, documents, parts), pair_weights(window, flat)
    expected = _one_by_one([list(map(int, d)) for d in documents], weights)
    packing = PairPacking(10)
    sizes, counts = CountSizes(chunk_tokens=chunk), Counter()
    for part in corpus.parts:
        middle = part.tokens // 2
        for start, stop in ((0, middle), (middle, part.tokens)):
            run = tmp_path / f"run{np.random.default_rng().integers(1 << 60)}"
            spans = (Span(part, start, stop),)
            count_shard(CountShard(spans, weights, packing, 1 << 20, run, tmp_path / "s", sizes), id)
            for segment in read_run(run):
                for a, b, n in zip(*map(np.ndarray.tolist, packing.unpack(segment.mapped())), strict=True):
                    counts[a, b] += n
    assert counts == expected


@settings(deadline=None, max_examples=300)
@given(
    entries=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 65_534)), max_size=60),
    block=st.integers(1, 9),
)
def test_folding_adds_up_what_belongs_together_though_a_sum_has_no_room_in_an_entry(
    entries: list[tuple[int, int, int]], block: int
):
    packing, expected, sums = PairPacking(1 << 24), Counter(), Counter()
    assert packing.max_weight == 65_534
    top = (1 << 24) - 4  # the largest ids: their entries are near the largest integer
    for a, b, n in entries:
        expected[top + min(a, b), top + max(a, b)] += n
    rows = np.array([(top + min(a, b), top + max(a, b), n) for a, b, n in entries], np.int64).reshape(-1, 3)
    folded = fold_pairs(packing.pack(rows[:, 0], rows[:, 1], rows[:, 2]), packing, block)
    assert (folded[1:] >= folded[:-1]).all()
    for a, b, n in zip(*map(np.ndarray.tolist, packing.unpack(folded)), strict=True):
        sums[a, b] += n
    assert sums == expected
    assert len(folded) <= len(entries)


def test_a_vocabulary_whose_pairs_have_no_room_is_refused():
    assert PairPacking(1 << 24).weight_bits == 16
    with pytest.raises(CorpusError, match="too large to count pairs"):
        PairPacking((1 << 24) + 1)


@pytest.fixture
def zipf(random: np.random.Generator) -> list[list[int]]:
    """60 documents of 500 tokens, with frequent and rare ids."""
    return np.minimum(random.zipf(1.3, (60, 500)) - 1, 299).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("memory", [64 << 20, 1 << 30])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_the_digest_depends_on_the_corpus_alone(zipf: list[list[int]], processes: int, memory: int, tmp_path: Path):
    sizes = CountSizes(shards=10, min_shard_pairs=20_000)
    corpus, weights = make_corpus(tmp_path, zipf, 4, 300), pair_weights(5)
    with open_engine("local", processes, memory, None, tmp_path) as engine:
        counts = count_pairs(corpus, weights, engine, tmp_path, QUIET, sizes)
    assert as_counter(counts) == _one_by_one(zipf, weights)
    assert counts.pairs == len(_one_by_one(zipf, weights))
    one = make_corpus(tmp_path, zipf, 4, 300)
    with open_engine("local", 1, 1 << 30, None, tmp_path) as engine:
        assert count_pairs(one, weights, engine, tmp_path / "other", QUIET, sizes).digest == counts.digest


def test_little_memory_makes_several_runs_and_ranges_and_the_same_counts(zipf: list[list[int]], tmp_path: Path):
    sizes = CountSizes(chunk_tokens=500, flush_share=0.1, samples=64)
    corpus, packing = make_corpus(tmp_path, zipf, 1, 300), PairPacking(300)
    part, weights = corpus.parts[0], pair_weights(5)
    run, staging = tmp_path / "run", tmp_path / "staging"
    count_shard(CountShard((Span(part, 0, part.tokens),), weights, packing, 100_000, run, staging, sizes), id)
    segments = read_run(run)
    assert len(segments) >= 3
    total = sum(segment.entries for segment in segments)
    room = total * 8 // 5
    ranges = merge_shards(segments, packing, room, 1, tmp_path / "merged", staging)
    assert len(ranges) > 5
    for shard in ranges:
        merge_segments(shard, lambda count: count * 8 <= room or pytest.fail(f"{count} entries at once"))
    merged = tuple(segment for shard in ranges for segment in read_run(shard.out))
    assert as_counter(PairCounts(merged, packing, "", 0)) == _one_by_one(zipf, weights)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 4])
def test_memory_too_small_to_merge_is_refused_with_the_size_that_is_enough(
    zipf: list[list[int]], tmp_path: Path, processes: int
):
    sizes = CountSizes(min_shard_pairs=20_000, samples=2)
    corpus = make_corpus(tmp_path, zipf, 1, 300)
    for number in (1, processes):  # the second continues with the runs of the first
        with open_engine("local", number, 400_000 * number, None, tmp_path) as engine:
            with pytest.raises(CorpusError, match="not enough memory to merge") as caught:
                count_pairs(corpus, pair_weights(5), engine, tmp_path, QUIET, sizes)
            assert list((tmp_path / "pairs").glob("*.work/*.run"))
    required = float(caught.value.hint.split("--memory ")[1].split("GB")[0])
    with open_engine("local", processes, int(required * 1e9), None, tmp_path) as engine:
        assert as_counter(count_pairs(corpus, pair_weights(5), engine, tmp_path, QUIET, sizes)) == _one_by_one(
            zipf, pair_weights(5)
        )


class _OtherProcess(RecordedProgress):
    """Simulates another process that counts the same corpus, and finishes when this one waits for it."""

    def __init__(self, table: Path) -> None:
        super().__init__()
        self._table, self._elsewhere = table, table.rename(table.parent.parent / "elsewhere")
        self._work = table.with_name(f"{table.name}.work")
        self._work.mkdir()
        self._lock = locked(self._work, wait=False)
        self._lock.__enter__()

    def note(self, text: str) -> None:
        super().note(text)
        self._elsewhere.rename(self._table)
        shutil.rmtree(self._work)
        self._lock.__exit__(None, None, None)


def test_a_build_that_waited_for_another_takes_its_counts_and_leaves_nothing(zipf: list[list[int]], tmp_path: Path):
    corpus, weights = make_corpus(tmp_path, zipf, 2, 300), pair_weights(5)
    with open_engine("local", 1, 1 << 30, None, tmp_path) as engine:
        first = count_pairs(corpus, weights, engine, tmp_path, QUIET)
        (table,) = (tmp_path / "pairs").iterdir()
        progress = _OtherProcess(table)
        assert count_pairs(corpus, weights, engine, tmp_path, progress).digest == first.digest
    assert progress.notes == ["waiting for another process that is counting the same corpus"]
    assert "count pairs" not in progress.steps
    assert list((tmp_path / "pairs").iterdir()) == [table]


def test_counts_are_kept_and_nothing_else_is(zipf: list[list[int]], tmp_path: Path):
    corpus, weights = make_corpus(tmp_path, zipf, 2, 300), pair_weights(5)
    with open_engine("local", 1, 1 << 30, None, tmp_path) as engine:
        first = count_pairs(corpus, weights, engine, tmp_path, QUIET)
        progress = RecordedProgress()
        again = count_pairs(corpus, weights, engine, tmp_path, progress)
    assert "count pairs" not in progress.steps
    assert again.digest == first.digest
    assert as_counter(again) == _one_by_one(zipf, weights)
    (kept,) = (tmp_path / "pairs").iterdir()
    assert not kept.name.endswith(".work")
    assert not (tmp_path / "staging").exists()


@pytest.mark.parametrize("damage", ["missing", "cut", "no summary"])
def test_counts_that_are_not_whole_are_counted_anew(zipf: list[list[int]], damage: str, tmp_path: Path):
    corpus, weights = make_corpus(tmp_path, zipf, 2, 300), pair_weights(5)
    with open_engine("local", 1, 1 << 30, None, tmp_path) as engine:
        count_pairs(corpus, weights, engine, tmp_path, QUIET)
        (kept,) = (tmp_path / "pairs").iterdir()
        (run,) = kept.glob("*.run")
        if damage == "missing":
            run.unlink()
        elif damage == "cut":
            run.write_bytes(run.read_bytes()[:-9])
        else:
            (kept / "counts.json").write_text("{}")
        assert as_counter(count_pairs(corpus, weights, engine, tmp_path, QUIET)) == _one_by_one(zipf, weights)


def test_a_sum_past_one_entry_comes_out_whole(tmp_path: Path):
    """In a vocabulary of 2²⁴ ids, an entry holds at most 65,534; a pair that occurs 40,000 times has more weight."""
    corpus = make_corpus(tmp_path, [[1, 2] * 20_000, [3, 4]], 1, 1 << 24)
    with open_engine("local", 1, 1 << 30, None, tmp_path) as engine:
        counts = count_pairs(corpus, (1, 5), engine, tmp_path, QUIET, CountSizes(block_entries=1))
    assert as_counter(counts) == {(1, 2): 39_999, (1, 1): 99_995, (2, 2): 99_995, (3, 4): 1}
    assert counts.pairs == 4
