"""Banks for another tokenizer, from an existing bank."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import orthogonal_mp

import costbank
from costbank.bank import Bank
from costbank.config import LMHeadConfig, TransferConfig, VectorsConfig, build_config
from costbank.errors import BankNotFoundError, CorruptBankError, InputError, UsageError
from costbank.progress import QuietProgress
from costbank.sources.matching import Match, match_tokens, same_bytes
from costbank.sources.transfer.combining import matching_pursuit, segment, segmented_sums
from costbank.vocab import TokenStatus, Vocab

DONOR = ["<unk>", " sun", "light", "sun", " moon", "s", " rain", "bow", "x", "y", "z"]
NEW = [" sun", " light", " sunlight", "moonlight", "xyz", "rainbow", "qq", "<unk>", " moons"]


def _tokenizer(folder: Path, name: str, tokens: list[str]) -> Path:
    """A byte-level tokenizer.json."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE({token.replace(" ", "Ġ"): i for i, token in enumerate(tokens)}, []))
    tokenizer.add_special_tokens([AddedToken(token) for token in tokens if token.startswith("<")])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / f"{name}.json"))
    return folder / f"{name}.json"


def _bank_of(tokenizer: Path, rows: np.ndarray, store: Path, name: str) -> Bank:
    np.save(store / "rows.npy", rows)
    config = build_config(
        source="vectors", tokenizer=tokenizer, store=store, name=name,
        vectors=VectorsConfig(path=store / "rows.npy"),
    )  # fmt: skip
    return costbank.build(config)


@pytest.fixture
def donor(tmp_path: Path, random: np.random.Generator) -> Bank:
    rows = random.standard_normal((len(DONOR), 5)).astype(np.float32)
    return _bank_of(_tokenizer(tmp_path, "donor", DONOR), rows, tmp_path, "donor")


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return _tokenizer(tmp_path, "new", NEW)


def _build(tokenizer: Path, store: Path, **settings) -> Bank:
    notes: list[str] = []
    progress = QuietProgress()
    progress.note = notes.append  # type: ignore[method-assign]
    config = build_config(source="transfer", tokenizer=tokenizer, store=store, name="t", transfer=settings)
    bank = costbank.build(config, progress)
    bank.notes = notes  # type: ignore[attr-defined]
    return bank


def _unit(row: np.ndarray) -> np.ndarray:
    return row / np.linalg.norm(row)


def test_a_token_is_its_bytes_or_its_word_or_the_mean_of_its_pieces(donor: Bank, new: Path, tmp_path: Path):
    bank = _build(new, tmp_path, donor="donor")
    row = dict(zip(DONOR, donor.vectors(), strict=True))
    expected = [
        row[" sun"],
        row["light"],
        _unit(row[" sun"] + row["light"]),
        None,  # there is no "moon" without a space
        None,  # only single letters
        None,  # nor a "rain"
        None,
        row["<unk>"],
        _unit(row[" moon"] + row["s"]),
    ]
    for got, wanted in zip(bank.vectors(), expected, strict=True):
        assert np.allclose(got, 0 if wanted is None else wanted, atol=1e-6)
    facts = bank.manifest.facts
    assert [facts[name] for name in ("exact", "with_or_without_space", "combined", "without_vector")] == [2, 1, 2, 4]
    assert bank.manifest.status == {"ok": 4, "byte": 0, "special": 1, "unused": 0, "unseen": 4}
    assert facts["donor"] == f"donor@{donor.id}"
    assert bank.manifest.inputs[0]["sha256"] == donor.manifest.files["vectors.safetensors"].sha256
    assert any("2 match a token of the donor exactly, 1 match one with" in note for note in bank.notes)  # type: ignore[attr-defined]


def test_the_same_tokenizer_gives_the_same_rows(news_bank: Bank, news_model: Path, tmp_path: Path):
    shutil.copytree(news_bank.path.parent, tmp_path / "news")
    bank = _build(news_model, tmp_path, donor="news")
    same = news_bank.usable
    assert np.abs(bank.vectors()[same] - news_bank.vectors()[same]).max() < 1e-6
    assert bank.usable[same].all()
    again = _build(news_model, tmp_path, donor=f"news@{news_bank.id[:6]}")
    assert again.id == bank.id
    assert bank.manifest.reproducible


def test_added_tokens_leave_all_other_rows_as_they_are(tmp_path: Path, random: np.random.Generator):
    tokens = ["<unk>", "<s>", "</s>", "<pad>", " sun", "light", "moon"]
    rows = random.standard_normal((len(tokens), 5)).astype(np.float32)
    old = _bank_of(_tokenizer(tmp_path, "old", tokens), rows, tmp_path, "old")
    assert old.usable.all()
    bank = _build(_tokenizer(tmp_path, "added", [*tokens, "<|user|>", "<|end|>"]), tmp_path, donor="old")
    assert np.allclose(bank.vectors()[: len(tokens)], old.vectors(), atol=1e-6)
    assert not bank.usable[len(tokens) :].any()
    assert bank.manifest.facts["exact"] == len(tokens)


def test_the_row_of_identical_bytes_is_of_the_same_id_else_of_the_same_status():
    ok, byte, special = TokenStatus.OK, TokenStatus.BYTE, TokenStatus.SPECIAL
    donor = Vocab.from_tokens([b"a", b"a", b"a", b"", b"b"], [byte, ok, ok, special, special])
    new = Vocab.from_tokens([b"b", b"a", b"a", b"", b"a", b"a", b"c"], [ok, ok, byte, special, byte, ok, ok])
    usable = np.array([True, True, True, True, True])
    assert same_bytes(new, donor, usable).tolist() == [4, 1, 2, -1, 0, 1, -1]
    assert same_bytes(new, donor, usable & [False, True, True, True, False]).tolist() == [-1, 1, 2, -1, 1, 1, -1]


@pytest.fixture
def compositional(tmp_path: Path, random: np.random.Generator) -> tuple[Path, np.ndarray]:
    """Words of two syllables; the syllables are tokens too, and a word's row is the sum of its syllables' rows."""
    syllables = [first + second for first in "bdfgkl" for second in "aeiou"]
    parts = random.standard_normal((len(syllables), 24))
    tokens, rows = list(syllables), list(parts)
    for i, first in enumerate(syllables):
        for j, second in enumerate(syllables):
            tokens.append(first + second)
            rows.append(parts[i] / np.linalg.norm(parts[i]) + parts[j] / np.linalg.norm(parts[j]))
    path = _tokenizer(tmp_path, "syllables", tokens)
    _bank_of(path, np.array(rows, np.float32), tmp_path, "syllables")
    return path, np.array(rows, np.float32)


def test_quality_is_measured_on_tokens_that_are_held_out(compositional: tuple[Path, np.ndarray], tmp_path: Path):
    facts = _build(compositional[0], tmp_path, donor="syllables").manifest.facts
    assert facts["held_out"] == 90
    assert facts["held_out_cosine"] > 0.999
    assert facts["held_out_overlap"] > 0.99
    assert abs(facts["held_out_chance_cosine"]) < 0.2


def test_a_donor_without_structure_is_shown_to_be_one(
    compositional: tuple[Path, np.ndarray], tmp_path: Path, random: np.random.Generator
):
    noise = random.standard_normal(compositional[1].shape).astype(np.float32)
    _bank_of(compositional[0], noise, tmp_path, "noise")
    facts = _build(compositional[0], tmp_path, donor="noise").manifest.facts
    assert abs(facts["held_out_cosine"]) < 0.2
    assert facts["held_out_overlap"] < 0.1


def test_matching_pursuit_finds_the_sums_that_the_guide_shows(
    compositional: tuple[Path, np.ndarray], tmp_path: Path, random: np.random.Generator
):
    """The guide is the donor's space after a rotation, so sums in one are sums in the other."""
    path, rows = compositional
    turn = np.linalg.qr(random.standard_normal((24, 24)))[0]
    _bank_of(path, (rows @ turn).astype(np.float32), tmp_path, "guide")
    facts = _build(path, tmp_path, donor="syllables", method="omp", guide="guide", atoms=8).manifest.facts
    assert facts["held_out_cosine"] > 0.9
    assert facts["exact"] == len(rows)


def test_matching_pursuit_in_the_space_of_spelling(donor: Bank, new: Path, tmp_path: Path):
    bank = _build(new, tmp_path, donor="donor", method="omp", atoms=2)
    assert np.allclose(bank.vectors()[0], donor.vectors()[1], atol=1e-6)
    assert bank.manifest.facts["combined"] >= 3


@pytest.mark.parametrize("atoms", [1, 3, 8])
def test_matching_pursuit_is_that_of_scikit_learn(random: np.random.Generator, atoms: int):
    known = random.standard_normal((60, 20))
    known /= np.linalg.norm(known, axis=1, keepdims=True)
    targets = random.standard_normal((25, 20))
    sums = matching_pursuit(targets.astype(np.float32), known.astype(np.float32), atoms)
    expected = orthogonal_mp(known.T, targets.T, n_nonzero_coefs=atoms).reshape(60, 25).T
    actual = np.zeros_like(expected)
    np.put_along_axis(actual, sums.rows, sums.weights.astype(np.float64), axis=1)
    assert np.allclose(actual, expected, atol=1e-4)


def test_matching_pursuit_stops_when_nothing_is_left():
    known = np.eye(3, 4, dtype=np.float32)
    sums = matching_pursuit(np.array([[0, 2, 0, 0], [0, 0, 0, 0]], np.float32), known, 3)
    assert sums.rows.tolist() == [[1, -1, -1], [-1, -1, -1]]
    assert sums.weights[0, 0] == pytest.approx(2)
    assert sums.exists.tolist() == [True, False]


@given(st.text("abc", min_size=1, max_size=9), st.sets(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=12))
def test_segmentation_is_the_cheapest_of_all(token: str, known: set[str]):
    costs = {word.encode(): 1 + len(word) % 3 / 7 for word in known}

    def cheapest(rest: bytes) -> float:
        if not rest:
            return 0
        return min((cost + cheapest(rest[len(w) :]) for w, cost in costs.items() if rest.startswith(w)), default=np.inf)

    pieces = segment(token.encode(), costs, 3)
    expected = cheapest(token.encode())
    assert bool(pieces) == np.isfinite(expected)
    if pieces:
        assert b"".join(pieces) == token.encode()
        assert sum(costs[piece] for piece in pieces) == pytest.approx(expected)


def test_counts_choose_the_likelier_pieces():
    rows = {b"ab": 0, b"c": 1, b"a": 2, b"bc": 3}
    rare, frequent = np.array([1, 1, 50, 50]), np.array([50, 50, 1, 1])
    assert segmented_sums([b"abc"], rows, rare).rows.tolist() == [[2, 3]]
    assert segmented_sums([b"abc"], rows, frequent).rows.tolist() == [[0, 1]]


def test_a_token_matches_as_tightly_as_it_can():
    vocab = Vocab.from_tokens(
        [b" a", b"a", b" B", b"c", b" ", b"<s>", b"\xe4"],
        [*[TokenStatus.OK] * 5, TokenStatus.SPECIAL, TokenStatus.BYTE],
    )
    rows = {b"a": 0, b" a": 1, b" b": 2, b" c": 3, b"<s>": 4, b"": 5, b" \xe4": 6}
    matches = match_tokens(vocab, rows, Match.FOLDED)
    assert matches.rows.tolist() == [1, 0, 2, 3, -1, -1, -1]
    assert [Match(how).name for how in matches.how] == [
        "EXACT", "EXACT", "FOLDED", "WORD_START", "NONE", "NONE", "NONE",
    ]  # fmt: skip
    assert match_tokens(vocab, rows, Match.EXACT).rows.tolist() == [1, 0, -1, -1, -1, -1, -1]


def test_a_damaged_donor_is_found_before_it_is_read(donor: Bank, new: Path, tmp_path: Path):
    path = donor.path / "vectors.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptBankError, match=r"sha256 of .*vectors\.safetensors differs"):
        _build(new, tmp_path, donor="donor")
    assert not (tmp_path / "t").exists()


def test_a_donor_or_guide_that_does_not_fit_is_refused(donor: Bank, new: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="needs a donor bank"):
        _build(new, tmp_path)
    with pytest.raises(BankNotFoundError):
        _build(new, tmp_path, donor="nobody")
    with pytest.raises(InputError, match="of a tokenizer other than"):
        _build(new, tmp_path, donor="donor", method="omp", guide="donor")
    with pytest.raises(UsageError, match=r"transfer\.guide has no effect with"):
        _build(new, tmp_path, donor="donor", guide="donor")
    with pytest.raises(InputError, match="0 tokens in common"):
        _build(_tokenizer(tmp_path, "other", ["q", "w"]), tmp_path, donor="donor")


def test_settings_of_other_sources_change_no_id(donor: Bank, new: Path, tmp_path: Path):
    one = build_config(source="transfer", tokenizer=new, store=tmp_path, transfer=TransferConfig(donor="donor"))
    other = one.model_copy(update={"lm_head": LMHeadConfig(model=tmp_path), "name": "other"})
    assert costbank.build(one).id == costbank.build(other).id
