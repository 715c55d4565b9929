"""Which tokenizer belongs to a head: added tokens without a row, padding, and a tokenizer of another model."""

from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

import costbank
from costbank.bank import Bank
from costbank.config import LMHeadConfig, NeighborsConfig, build_config
from costbank.errors import CheckpointError, TokenizerError
from costbank.progress import QuietProgress
from costbank.tokenizers import load_tokenizer
from costbank.trainers.tokenizer import check_tokenizer
from costbank.vocab import TokenStatus

WORDS = [
    "<pad>",
    "<unk>",
    "▁▁",
    "▁▁▁",
    "▁",
    "a",
    "b",
    "c",
    *(f"▁word{i}" for i in range(56)),
    *(f"<0x{b:02X}>" for b in range(256)),
]
ADDED = [("<pad>", True), ("▁▁", False), ("▁▁▁", False), ("<mask>", False), ("<tool>", False)]


def _gemma_like(path: Path, words: list[str] = WORDS, extra: tuple[str, ...] = ()) -> Path:
    """BPE with ▁ for spaces and byte fallback, whose runs of spaces are added tokens."""
    known = {"<unk>": 1} | {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(
        models.BPE(known, [("▁", "▁"), ("▁▁", "▁")] if "▁" in known else [], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    for text, special in ADDED:
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)([AddedToken(text, normalized=False)])
    tokenizer.add_special_tokens([AddedToken(text) for text in extra])
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return path


ROWS = len(WORDS) + 2


def _model(folder: Path, rows: int = ROWS) -> Path:
    folder.mkdir(exist_ok=True)
    head = np.random.default_rng(3).normal(size=(rows, 12)).astype(np.float32)
    save_file({"lm_head.weight": head}, folder / "model.safetensors")
    return folder


def _gguf(path: Path, tokens: list[str], types: list[int], rows: int) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_tensor("token_embd.weight", np.random.default_rng(3).normal(size=(rows, 32)).astype(np.float32))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    return path


def _build(model: Path, store: Path, tokenizer: Path | None = None, insist: bool = False) -> tuple[Bank, list[str]]:
    notes: list[str] = []

    class Progress(QuietProgress):
        def note(self, text: str) -> None:
            notes.append(text)

    head = LMHeadConfig(model=model, accept_other_tokenizer=insist)
    config = build_config(
        source="lm-head", name="m", store=store, tokenizer=tokenizer, lm_head=head, neighbors=NeighborsConfig(k=0)
    )
    return costbank.build(config, Progress()), notes


def test_added_runs_of_spaces_are_spaces_as_the_decoder_gives_them(tmp_path: Path):
    path = _gemma_like(tmp_path / "tokenizer.json")
    tokenizer, original = load_tokenizer(path), Tokenizer.from_file(str(path))
    assert tokenizer.vocab.token(2) == b"  " == original.decode([2]).encode()
    assert tokenizer.vocab.token(3) == b"   "
    ids, _ = tokenizer.encode(["a  b   c"])
    assert b"".join(map(tokenizer.vocab.token, ids.tolist())) == b"a  b   c"


def test_a_gguf_and_a_tokenizer_json_of_one_model_have_one_vocabulary(tmp_path: Path):
    kinds = [3, 2, *[4] * 2, *[1] * 60, *[6] * 256]
    file = _gguf(tmp_path / "m.gguf", [*WORDS, "<mask>", "<tool>"], [*kinds, 3, 4], ROWS)
    json_vocab = load_tokenizer(_gemma_like(tmp_path / "tokenizer.json")).vocab
    assert load_tokenizer(file).vocab.fingerprint == json_vocab.fingerprint
    assert json_vocab.status_of(json_vocab.find("<mask>")) is TokenStatus.SPECIAL
    assert json_vocab.status_of(json_vocab.find("<tool>")) is TokenStatus.OK


def test_trailing_added_tokens_without_a_row_are_noted(tmp_path: Path):
    model = _model(tmp_path / "model")
    path = _gemma_like(model / "tokenizer.json", extra=("<image_soft_token>",))
    bank, notes = _build(model, tmp_path / "store")
    assert bank.size == ROWS
    assert any("1 added token after the head's 322 rows gets no vector: <image_soft_token>" in note for note in notes)
    with pytest.warns(UserWarning, match=r"1 added tokens that .* has no vectors for: 322 \(<image_soft_token>\)"):
        check_tokenizer(bank, Tokenizer.from_file(str(path)))


def test_tokens_of_the_models_own_without_a_row_are_refused(tmp_path: Path):
    model = _model(tmp_path / "model", ROWS - 10)
    _gemma_like(model / "tokenizer.json", [*WORDS, *(f"more{i}" for i in range(9))])
    with pytest.raises(CheckpointError, match="has 312 rows, but the tokenizer has 331 tokens"):
        _build(model, tmp_path / "store")


def test_a_processors_tokenizer_is_looked_at(tmp_path: Path):
    model = _model(tmp_path / "model")
    right = Tokenizer.from_file(str(_gemma_like(model / "tokenizer.json")))
    wrong = Tokenizer.from_file(str(_gemma_like(tmp_path / "x" / "tokenizer.json", WORDS[:2] + WORDS[:1:-1])))
    bank, _ = _build(model, tmp_path / "store")

    class Processor:
        def __init__(self, tokenizer: Tokenizer) -> None:
            self.tokenizer = tokenizer

    check_tokenizer(bank, Processor(right))
    with pytest.raises(TokenizerError, match="ids differ"):
        check_tokenizer(bank, Processor(wrong))


def test_padding_is_noted(tmp_path: Path):
    model = _model(tmp_path / "model", ROWS + 30)
    _gemma_like(model / "tokenizer.json")
    bank, notes = _build(model, tmp_path / "store")
    assert bank.size == ROWS + 30
    assert any("the last 30 of the head's 352 rows have no token" in note for note in notes)


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_another_tokenizer_is_refused_by_what_its_ids_stand_for(tmp_path: Path, kind: str):
    model = _model(tmp_path / "model")
    _gemma_like(model / "tokenizer.json")
    if kind == "gguf":
        kinds = [3, 2, *[4] * 2, *[1] * 60, *[6] * 256]
        model = _gguf(tmp_path / "m.gguf", [*WORDS, "<mask>", "<tool>"], [*kinds, 3, 4], ROWS)
    other = _gemma_like(tmp_path / "other" / "tokenizer.json", [*WORDS[:4], *WORDS[63:3:-1], *WORDS[64:]])
    with pytest.raises(TokenizerError, match=r"60 of 322 ids differ: id 4 is '▁word55', but '▁") as caught:
        _build(model, tmp_path / "store", other)
    assert "--accept-other-tokenizer" in caught.value.hint
    bank, notes = _build(model, tmp_path / "store", other, insist=True)
    assert bank.vocab.token(4) == b" word55"
    assert any("60 of 322 ids differ" in note for note in notes)
    same = _gemma_like(tmp_path / "same" / "tokenizer.json")
    assert not any("differ" in note for note in _build(model, tmp_path / "store", same)[1])


def test_another_tokenizer_is_refused_where_it_lies_in_the_models_folder(tmp_path: Path):
    model = _model(tmp_path / "model")
    own = _gemma_like(model / "tokenizer.json")
    stale = _gemma_like(model / "stale.json", [*WORDS[:20], WORDS[21], WORDS[20], *WORDS[22:]])
    with pytest.raises(TokenizerError, match=r"2 of 322 ids differ: id 20 is '▁word13', but '▁word12' in the model"):
        _build(model, tmp_path / "store", stale)
    assert _build(model, tmp_path / "store", stale, insist=True)[0].vocab.token(20) == b" word13"
    for same in (own, model, _gemma_like(model / "copy.json")):
        assert not any("differ" in note for note in _build(model, tmp_path / "store", same)[1])
    # If the folder's tokenizer has no known name, the named file counts as the model's own.
    own.rename(model / "mine.json")
    (model / "copy.json").unlink()
    stale.unlink()
    assert _build(model, tmp_path / "store", model / "mine.json")[0].vocab.token(20) == b" word12"


def test_rows_that_are_stored_as_columns_are_refused(tmp_path: Path):
    model = tmp_path / "model"
    model.mkdir()
    save_file({"lm_head.weight": np.random.default_rng(3).normal(size=(400, ROWS))}, model / "model.safetensors")
    _gemma_like(model / "tokenizer.json")
    with pytest.raises(CheckpointError, match=r"400 × 322.* one column per token instead of one row"):
        _build(model, tmp_path / "store")
    assert _build(model, tmp_path / "store", insist=True)[0].size == 400


def test_a_renamed_special_token_is_accepted_with_a_note(tmp_path: Path):
    model = _model(tmp_path / "model")
    _gemma_like(model / "tokenizer.json")
    renamed = _gemma_like(tmp_path / "new" / "tokenizer.json", ["<|pad|>", *WORDS[1:]])
    with pytest.raises(CheckpointError):  # with its <pad>, this file has one more token than the head has rows
        _build(_model(tmp_path / "short", 200), tmp_path / "store", renamed)
    bank, notes = _build(model, tmp_path / "store", renamed)
    assert bank.size == ROWS
    assert any("ids differ" in note for note in notes)


def test_without_the_models_own_tokenizer_the_number_of_rows_decides(tmp_path: Path):
    model = _model(tmp_path / "model", 3 * ROWS)
    tokenizer = _gemma_like(tmp_path / "other" / "tokenizer.json")
    with pytest.raises(TokenizerError, match="966 rows: padding does not explain"):
        _build(model, tmp_path / "store", tokenizer)
    bank, _ = _build(model, tmp_path / "store", tokenizer, insist=True)
    assert bank.size == 3 * ROWS
    near = _model(tmp_path / "near", ROWS + 100)
    assert _build(near, tmp_path / "store", tokenizer)[0].size == ROWS + 100
