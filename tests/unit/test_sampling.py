"""Sampled segmentations have the model's distribution, and each depends only on its text and seed."""

import base64
import json
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise, product
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rs_bytepiece
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from costbank.errors import UsageError
from costbank.tokenizers import SamplingTokenizer, Tokenizer, load_tokenizer
from costbank.tokenizers.sampling.lattice import LONG_SEGMENT_BYTES, Lattice, PieceScores, to_symbols
from costbank.tokenizers.sampling.trie import Trie
from costbank.tokenizers.sampling.unigram import UnigramSampler
from costbank.tokenizers.sentencepiece_file import PieceKind, SentencePieceFile

DRAWS = 10_000
UNLIKELY = 1e-4
TEXTS = [
    "the prime minister said",
    "",
    " ",
    "internationalization  of\ngovernments",
    "日本 🙂🙂 é\x00",
    "▁ a▁b",
    "x" * 50,
]
IDENTITY = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
MODELS = {
    "unigram": {},
    "unigram with bytes": {"byte_fallback": True},
    "unigram with symbols": {"byte_fallback": True, "user_defined_symbols": ["the_end", "minister", "日本語"]},
    "unigram across words": {"split_by_whitespace": False, "hard_vocab_limit": False},
    "unigram, spaces after words": {"treat_whitespace_as_suffix": True},
    "unigram, text as it is": {**IDENTITY, "byte_fallback": True},
    "BPE": {"model_type": "bpe"},
    "BPE with symbols": {
        "model_type": "bpe",
        "byte_fallback": True,
        "user_defined_symbols": ["the_end", "in", "日本語"],
    },
    "BPE, text as it is": {**IDENTITY, "model_type": "bpe", "byte_fallback": True, "split_digits": True},
}
SYMBOLS = " the_end日本語 ministerthe_endx"
Ids = tuple[int, ...]


@pytest.fixture(scope="module")
def trained(news: Path, tmp_path_factory: pytest.TempPathFactory):
    @cache
    def train(name: str) -> Path:
        path = tmp_path_factory.mktemp("models") / "m"
        sentencepiece.SentencePieceTrainer.train(
            **{"input": str(news), "model_prefix": str(path), "vocab_size": 1_000, "minloglevel": 2} | MODELS[name]
        )
        return path.with_suffix(".model")

    return train


@pytest.fixture(scope="module")
def bytepiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All bytes and some pieces, two of which are not text."""
    pieces = {bytes([byte]): 2 for byte in range(256)} | {
        b"a": 40, b"ab": 30, b"b": 20, b"ba": 9, b"abab": 12, b"\xe6\x97": 25, b"\xa5\xe6": 15, b" a": 11, b"\n\n": 8,
    }  # fmt: skip
    content = {
        base64.b64encode(piece).decode(): [number, piece.decode("latin-1"), count]
        for number, (piece, count) in enumerate(pieces.items(), 3)
    }
    path = tmp_path_factory.mktemp("bytepiece") / "b.model"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def any_model(trained, bytepiece: Path):
    return lambda name: _loaded(bytepiece if name == "BytePiece" else trained(name))


@cache
def _loaded(path: Path) -> SamplingTokenizer:
    tokenizer = load_tokenizer(path)
    assert isinstance(tokenizer, SamplingTokenizer)
    return tokenizer


def _drawn(
    tokenizer: SamplingTokenizer | UnigramSampler, texts: list[str], alpha: float, seeds: list[int]
) -> list[Ids]:
    ids, ends = tokenizer.sample(texts, alpha, np.array(seeds, np.int64))
    assert ids.dtype == np.int32
    assert len(ends) == len(texts)
    assert len(ids) == (ends[-1] if texts else 0)
    return [tuple(part.tolist()) for part in np.split(ids, ends)[: len(texts)]]


def _best(tokenizer: Tokenizer, texts: list[str]) -> list[Ids]:
    ids, ends = tokenizer.encode(texts)
    return [tuple(part.tolist()) for part in np.split(ids, ends)[: len(texts)]]


def _segmentations(text: bytes, pieces: dict[bytes, tuple[Ids, float]]) -> Iterator[tuple[Ids, float]]:
    if not text:
        yield (), 0.0
    for end in range(1, len(text) + 1):
        if result := pieces.get(text[:end]):
            for ids, score in _segmentations(text[end:], pieces):
                yield result[0] + ids, result[1] + score


def _expected(text: bytes, pieces: dict[bytes, tuple[Ids, float]], alpha: float) -> dict[Ids, float]:
    weights = {ids: exp(alpha * score) for ids, score in _segmentations(text, pieces)}
    return {ids: weight / sum(weights.values()) for ids, weight in weights.items()}


def _assert_distributed(drawn: list[Ids], expected: dict[Ids, float]) -> None:
    counts = Counter(drawn)
    assert counts.keys() <= expected.keys()
    pairs = sorted(((share * len(drawn), counts[ids]) for ids, share in expected.items()), reverse=True)
    common = [pair for pair in pairs if pair[0] >= 10]
    rare = np.sum([pair for pair in pairs if pair[0] < 10] or [(0.0, 0)], axis=0)
    wanted, got = np.array([*common, rare] if rare[0] > 5 else common).T
    assert len(wanted) > 1
    assert chisquare(got * wanted.sum() / got.sum(), wanted).pvalue > UNLIKELY


def _assert_same_distribution(one: list[Ids], other: list[Ids]) -> None:
    counts = Counter(one), Counter(other)
    common = [ids for ids, count in (counts[0] + counts[1]).items() if count >= 20]
    table = np.array([[of[ids] for ids in common] for of in counts])
    rare = np.array([len(one), len(other)]) - table.sum(axis=1)
    table = np.column_stack([table, rare]) if rare.min() > 5 else table
    assert table.shape[1] > 1
    assert chi2_contingency(table).pvalue > UNLIKELY


def _pieces_of(path: Path, text: str) -> dict[bytes, tuple[Ids, float]]:
    """What SentencePiece can match in a text: its pieces, and characters that are not pieces."""
    model = SentencePieceFile.read(path.read_bytes())
    lowest = min(piece.score for piece in model.pieces if piece.kind == PieceKind.NORMAL)
    unknown = {
        character.encode(): (
            (model.unknown,) if model.byte_ids is None else tuple(model.byte_ids[list(character.encode())].tolist()),
            lowest - 10,
        )
        for character in text
    }
    known = {
        piece.text.encode(): ((n,), 0.1 * (len(piece.text) - 1) if piece.kind == PieceKind.USER else piece.score)
        for n, piece in enumerate(model.pieces)
        if piece.kind in (PieceKind.NORMAL, PieceKind.USER)
    }
    return unknown | known


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.05, 0.3, 1.0])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("unigram", "insistered"),
        ("unigram", "the日 an"),
        ("unigram with bytes", "the日 an"),
        ("unigram with symbols", "a日本語the"),
        ("unigram across words", "of the a"),
        ("unigram, spaces after words", "in the a"),
    ],
)
def test_a_unigram_model_draws_each_segmentation_by_its_probability(trained, name: str, text: str, alpha: float):
    path = trained(name)
    normal = sentencepiece.SentencePieceProcessor(model_file=str(path)).normalize(text)
    expected = _expected(normal.encode(), _pieces_of(path, normal), alpha)
    assert len(expected) > 5
    _assert_distributed(_drawn(_loaded(path), [text] * DRAWS, alpha, list(range(DRAWS))), expected)


def test_user_defined_pieces_weigh_as_in_sentencepiece(trained):
    path = trained("unigram with symbols")
    alpha = 0.02  # small enough that other segmentations of these pieces are drawn too
    normal = "▁日本語x"
    drawn = _drawn(_loaded(path), ["日本語x"] * DRAWS, alpha, list(range(DRAWS)))
    _assert_distributed(drawn, _expected(normal.encode(), _pieces_of(path, normal), alpha))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    _assert_same_distribution(drawn, [_by_sentencepiece(processor, "日本語x", alpha) for _ in range(DRAWS)])


def _by_sentencepiece(processor, text: str, alpha: float) -> Ids:
    return tuple(processor.encode(text, enable_sampling=True, alpha=alpha, nbest_size=-1))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_draws_are_distributed_as_those_of_sentencepiece(trained, name: str):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(trained(name)))
    tokenizer = _loaded(trained(name))
    for text in ("a minister", "the_end日 in another"):
        theirs = [_by_sentencepiece(processor, text, 0.2) for _ in range(DRAWS)]
        _assert_same_distribution(_drawn(tokenizer, [text] * DRAWS, 0.2, list(range(DRAWS))), theirs)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
@pytest.mark.parametrize("text", ["ababab", "日本 ab", "a\n\nab a", "\n\n\nab"])
def test_bytepiece_draws_each_segmentation_by_its_probability(bytepiece: Path, text: str, alpha: float):
    content = {base64.b64decode(key): value for key, value in json.loads(bytepiece.read_text()).items()}
    total = sum(count for _, _, count in content.values())
    pieces = {piece: ((n,), log(count / total)) for piece, (n, _, count) in content.items()}
    expected = {(): 1.0}
    for line in text.encode().splitlines(keepends=True) if "\n\n" not in text else _lines(text):
        expected = {
            before + after: share * then
            for before, share in expected.items()
            for after, then in _expected(line, pieces, alpha).items()
        }
    _assert_distributed(_drawn(_loaded(bytepiece), [text] * DRAWS, alpha, list(range(DRAWS))), expected)


def _lines(text: str) -> list[bytes]:
    """Lines, each with all line feeds after it; line feeds before the first line form a line."""
    cuts = [0, *(n for n in range(1, len(text)) if text[n - 1] == "\n" != text[n]), len(text)]
    return [text[low:high].encode() for low, high in pairwise(cuts)]


@pytest.mark.slow
def test_bytepiece_draws_are_distributed_as_those_of_the_reference(shared_data: Path):
    path = shared_data / "bytepiece.plus.40k.model"
    reference = rs_bytepiece.Tokenizer(str(path))
    for text in ("internation", "日本 and"):
        theirs = [tuple(reference.encode(text, alpha=0.3)) for _ in range(DRAWS)]
        _assert_same_distribution(_drawn(_loaded(path), [text] * DRAWS, 0.3, list(range(DRAWS))), theirs)


@pytest.mark.parametrize("name", [*MODELS, "BytePiece"])
def test_a_draw_depends_on_its_text_and_seed_alone(any_model, news: Path, name: str):
    tokenizer = any_model(name)
    texts = [*TEXTS, *news.read_text().splitlines()[:20], SYMBOLS, "", "a" * (LONG_SEGMENT_BYTES + 5), *TEXTS]
    seeds = list(range(100, 100 + len(texts)))
    together = _drawn(tokenizer, texts, 0.2, seeds)
    assert [_drawn(tokenizer, [text], 0.2, [seed])[0] for text, seed in zip(texts, seeds, strict=True)] == together
    assert _drawn(tokenizer, texts[::-1], 0.2, seeds[::-1]) == together[::-1]
    assert _drawn(tokenizer, texts[3:9] * 3, 0.2, seeds[3:9] * 3) == together[3:9] * 3
    assert _drawn(tokenizer, texts, 0.2, [seed + 1 for seed in seeds]) != together
    assert _drawn(tokenizer, texts, 0.3, seeds) != together


@pytest.mark.parametrize("name", ["unigram", "BPE", "BytePiece"])
def test_a_draw_is_the_same_in_another_process(trained, bytepiece: Path, name: str):
    path = bytepiece if name == "BytePiece" else trained(name)
    program = (
        "import sys, json, numpy as np; from pathlib import Path; from costbank.tokenizers import load_tokenizer\n"
        "texts = json.loads(sys.argv[2]); tokenizer = load_tokenizer(Path(sys.argv[1]))\n"
        "ids, ends = tokenizer.sample(texts, 0.2, np.arange(len(texts)))\n"
        "print(json.dumps([part.tolist() for part in np.split(ids, ends)[:-1]]))"
    )
    command = [sys.executable, "-c", program, str(path), json.dumps(TEXTS)]
    elsewhere = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert [tuple(ids) for ids in elsewhere] == _drawn(_loaded(path), TEXTS, 0.2, list(range(len(TEXTS))))


def test_seeds_reach_from_0_to_the_largest(trained):
    tokenizer = _loaded(trained("unigram"))
    seeds = [0, 1, 2**31, 2**32 - 1, *range(50)]
    assert len(set(_drawn(tokenizer, ["internationalization"] * 54, 0.1, seeds))) > 40


def test_equal_words_of_a_text_are_drawn_apart(any_model):
    for name in ("unigram", "BPE"):
        (ids,) = _drawn(any_model(name), ["recalcitrant " * 200], 0.3, [5])
        vocab, words, word = any_model(name).vocab, set(), ()
        for token_id in ids:
            if vocab.token(token_id).startswith(b" ") and word:
                words.add(word)
                word = ()
            word = (*word, token_id)
        assert len(words) > 15


@pytest.mark.parametrize("name", [name for name in MODELS if "BPE" not in name])
def test_a_large_alpha_gives_the_best_segmentation(trained, news: Path, name: str):
    tokenizer = _loaded(trained(name))
    texts = [*TEXTS, *news.read_text().splitlines(), SYMBOLS]
    best, drawn = _best(tokenizer, texts), _drawn(tokenizer, texts, 1e5, [0] * len(texts))
    assert sum(map(np.array_equal, drawn, best)) >= len(texts) - 3  # except for ties


@pytest.mark.parametrize("name", [name for name in MODELS if "BPE" in name])
def test_almost_no_dropout_gives_the_best_segmentation(trained, news: Path, name: str):
    tokenizer = _loaded(trained(name))
    texts = [*TEXTS, *news.read_text().splitlines(), SYMBOLS, "in the_end, 日本語 and in日本in in"]
    assert _drawn(tokenizer, texts, 1e-15, [0] * len(texts)) == _best(tokenizer, texts)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama2.model", "bytepiece_80k.model", "bytepiece.plus.40k.model"])
@pytest.mark.parametrize("file", ["english.txt", "japanese.txt"])
def test_real_models_come_to_the_best_segmentation_of_real_text(shared_data: Path, name: str, file: str):
    tokenizer = _loaded(shared_data / name)
    texts = (shared_data / file).read_bytes().decode()[:300_000].splitlines()
    best = _best(tokenizer, texts)
    drawn = _drawn(tokenizer, texts, 1e-15 if "llama" in name else 1e5, [0] * len(texts))
    assert sum(map(np.array_equal, drawn, best)) >= 0.998 * len(texts)  # except for ties, as in ------


@pytest.mark.parametrize("name", ["unigram with bytes", "BPE with symbols", "BytePiece"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(" \nabthein"))),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_bytes_of_a_draw_are_the_normalized_text(any_model, trained, name: str, texts: list[str], seed: int):
    tokenizer = any_model(name)
    if name == "BytePiece":
        expected = [unicodedata.normalize("NFC", text) for text in texts]
    else:
        processor = sentencepiece.SentencePieceProcessor(model_file=str(trained(name)))
        expected = [text.replace("▁", " ") for text in processor.normalize(texts)]
    drawn = _drawn(tokenizer, texts, 0.1, [seed] * len(texts))
    assert [b"".join(map(tokenizer.vocab.token, ids)).decode() for ids in drawn] == expected
    assert drawn == [_drawn(tokenizer, [text], 0.1, [seed])[0] for text in texts]


def test_unknown_characters_in_a_row_are_one_id_within_a_text(trained):
    tokenizer = _loaded(trained("unigram"))
    unknown = SentencePieceFile.read(trained("unigram").read_bytes()).unknown
    drawn = _drawn(tokenizer, ["日本語", "日本 語", "日"], 0.2, [1, 2, 3])
    assert [ids.count(unknown) for ids in drawn] == [1, 2, 1]
    assert [ids[-1] for ids in drawn] == [unknown] * 3


def test_no_texts_and_empty_texts_have_no_tokens(any_model):
    for name in ("unigram", "BPE", "BytePiece"):
        assert _drawn(any_model(name), [], 0.1, []) == []
        assert _drawn(any_model(name), ["", ""], 0.1, [1, 2]) == [(), ()]


def _dropout(symbols: list[str], scores: dict[str, float], alpha: float, skipped: frozenset[tuple[int, int]]) -> dict:
    """The distribution of a BPE model's segmentations, computed by following both outcomes of every merge.

    Symbols keep the positions of their first characters. A pair that was skipped is tried again when a symbol grows.
    """
    at = [n for n, symbol in enumerate(symbols) if symbol]
    pairs = []
    for a, b in pairwise(at):
        piece = symbols[a] + symbols[b]
        if piece in scores and (a, len(piece)) not in skipped:
            pairs.append((-scores[piece], a, b))
    if not pairs:
        return {tuple(symbols[n] for n in at): 1.0}
    _, a, b = min(pairs)
    merged = [*symbols]
    merged[a], merged[b] = symbols[a] + symbols[b], ""
    result: Counter = Counter()
    for share, outcome in (
        (1 - alpha, _dropout(merged, scores, alpha, skipped)),
        (alpha, _dropout(symbols, scores, alpha, skipped | {(a, len(merged[a]))})),
    ):
        for segmentation, then in outcome.items():
            result[segmentation] += share * then
    return result


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "alpha"),
    [*product(["the", "minister", "in an inn"], [0.1, 0.5, 0.9]), ("x" * 3 + "in" * 17, 0.9)],
)
def test_bpe_dropout_leaves_out_each_merge_with_its_probability(trained, text: str, alpha: float):
    path = trained("BPE")
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    drawn = _drawn(_loaded(path), [text] * DRAWS, alpha, list(range(DRAWS)))
    if len(text) > 32:
        theirs = [_by_sentencepiece(processor, text, alpha) for _ in range(DRAWS)]
        _assert_same_distribution([ids[:9] for ids in drawn], [ids[:9] for ids in theirs])
        return
    scores = {piece.text: piece.score for piece in SentencePieceFile.read(path.read_bytes()).pieces}
    expected = _dropout(list(processor.normalize(text)), scores, alpha, frozenset())
    _assert_distributed(drawn, {tuple(map(processor.piece_to_id, pieces)): share for pieces, share in expected.items()})


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["unigram", "BPE", "BytePiece"])
def test_an_alpha_that_says_nothing_is_refused(any_model, name: str, alpha: float):
    with pytest.raises(UsageError, match="alpha"):
        any_model(name).sample(["a"], alpha, np.zeros(1, np.int64))


def test_bpe_dropout_needs_a_probability(any_model):
    with pytest.raises(UsageError, match="between 0 and 1"):
        any_model("BPE").sample(["a"], 1.0, np.zeros(1, np.int64))


@pytest.mark.parametrize("kind", ["word", "char"])
def test_models_with_one_segmentation_say_so(news: Path, tmp_path: Path, kind: str):
    sentencepiece.SentencePieceTrainer.train(
        input=str(news), model_prefix=str(tmp_path / "m"), vocab_size=70, model_type=kind, minloglevel=2
    )
    tokenizer = load_tokenizer(tmp_path / "m.model")
    assert isinstance(tokenizer, SamplingTokenizer)
    with pytest.raises(UsageError, match="only one segmentation"):
        tokenizer.sample(["a"], 0.1, np.zeros(1, np.int64))


def _small(pieces: dict[bytes, float], **options: Any) -> UnigramSampler:
    trie = Trie.build(list(pieces), list(range(len(pieces))))
    scores = PieceScores(np.array(list(pieces.values())))
    return UnigramSampler(trie, scores, lambda text: [text] if text else [], **options)


def test_a_very_long_segment_is_drawn_as_a_short_one_is():
    pieces = {b"a": log(0.5), b"aa": log(0.3), b"aaa": log(0.2)}
    length = 200_000
    ids, ends = _small(pieces).sample(["a" * length], 1.0, np.array([3]))
    assert ends.tolist() == [len(ids)]
    assert (ids + 1).sum() == length
    # This is a renewal process: each piece's share is its probability, and the probabilities add up to 1.
    assert np.bincount(ids) / len(ids) == pytest.approx([0.5, 0.3, 0.2], abs=0.006)
    assert _small(pieces).sample(["b", "a" * length, "a"][1:], 1.0, np.array([3, 4]))[0][: len(ids)].tolist() == (
        ids.tolist()
    )


def test_long_segments_have_the_probabilities_of_short_ones():
    trie = Trie.build([b"a", b"aa", b"aaa", b"ba"], [0, 1, 2, 3])
    scores = PieceScores(np.log([0.4, 0.3, 0.2, 0.1, 1e-4]), 4)
    symbols = to_symbols([b"aabaaa" * 100, b"a" * 120 + b"b" + b"a" * 70, b"aaaa", b"baaa" * 99])
    short = Lattice.build(symbols, trie, scores, 0.7)
    long = Lattice.build(symbols, trie, scores, 0.7, long_segment_bytes=50)
    assert (short.is_long.any(), long.is_long.any(), long.is_long.all()) == (False, True, False)
    for lattice in (short, long):
        assert np.add.reduceat(lattice.prob, lattice.first_arc[:-1]) == pytest.approx(1)
    for boundary in np.flatnonzero(short.node >= 0).tolist():
        arcs = [slice(*one.first_arc[one.node[boundary] : one.node[boundary] + 2]) for one in (short, long)]
        assert short.start[arcs[0]].tolist() == long.start[arcs[1]].tolist()
        assert short.prob[arcs[0]] == pytest.approx(long.prob[arcs[1]], rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unigram with bytes", "unigram across words", "BPE", "BytePiece"])
def test_a_line_of_two_megabytes_is_drawn(any_model, news: Path, name: str):
    line = (" ".join(news.read_text().split()) + " 日本 ") * 7
    line = line[: 2 << 20]
    assert len(line) > 2_000_000
    tokenizer = any_model(name)
    ids, ends = tokenizer.sample([line, "a"], 0.2, np.array([1, 2]))
    text = b"".join(map(tokenizer.vocab.token, ids[: ends[0]].tolist())).decode(errors="replace")
    assert len(text) > 0.99 * len(line.strip())
    assert _drawn(tokenizer, ["a"], 0.2, [2])[0] == tuple(ids[ends[0] :].tolist())


def test_parts_of_a_text_longer_than_a_block_give_the_text_back(bytepiece: Path):
    content = json.loads(bytepiece.read_text())
    pieces = {base64.b64decode(key): log(count) for key, (_, _, count) in content.items()}
    sampler, vocab = _small(pieces, block_bytes=64), list(pieces)
    texts = ["abab日本 " * 40, "aba" * 100, "", "ab\n" * 50, "日" * 90]
    drawn = _drawn(sampler, texts, 0.2, list(range(5)))
    assert [b"".join(vocab[token_id] for token_id in ids).decode() for ids in drawn] == texts
    assert [_drawn(sampler, [text], 0.2, [n])[0] for n, text in enumerate(texts)] == drawn


@pytest.mark.parametrize("dense", [False, True])
def test_a_trie_finds_every_piece_wherever_it_begins(random: np.random.Generator, dense: bool):
    if dense:  # all nodes above the last level have many children, so a small table leaves no choice of positions
        pieces = [bytes([a, b]) for a in range(0, 256, 2) for b in range(0, 256, 3)] + [bytes([a]) for a in range(256)]
    else:
        pieces = list({bytes(random.integers(0, 4, random.integers(1, 7)).astype(np.uint8)) for _ in range(400)})
    trie = Trie.build(pieces, list(range(len(pieces))))
    texts = [bytes(random.integers(0, 256 if dense else 4, size).astype(np.uint8)) for size in (0, 1, 300, 7)]
    actual = set()
    symbols = to_symbols(texts)
    for length, (starts, numbers) in enumerate(trie.matches(symbols), 1):
        assert all(len(pieces[number]) == length for number in numbers.tolist())
        actual |= set(zip(starts.tolist(), numbers.tolist(), strict=True))
    expected, start = set(), 0
    for text in texts:
        for low in range(len(text)):
            for number, piece in enumerate(pieces):
                if text.startswith(piece, low):
                    expected.add((start + low, number))
        start += len(text) + 1
    assert actual == expected
