"""SentencePiece models in model folders: ids that the tokenizer's class shifts, and tokens that were added later."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sentencepiece
import transformers
from safetensors.numpy import save_file

import costbank
from costbank.bank import Bank
from costbank.config import LMHeadConfig, NeighborsConfig, build_config
from costbank.errors import TokenizerError
from costbank.progress import QuietProgress
from costbank.tokenizers import SamplingTokenizer, load_tokenizer
from costbank.tokenizers.sentencepiece_file import SentencePieceFile
from costbank.trainers.tokenizer import check_tokenizer
from costbank.vocab import TokenStatus

converters: Any = importlib.import_module("transformers.convert_slow_tokenizer")
TEXTS = ["The minister said on Monday that the budget is balanced", "unbelievable", "the 日 king"]
SPACE = "▁"


FIRST: dict[str, dict[str, Any]] = {
    "llama": {},
    "pegasus": {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    "deberta": {"pad_id": 0, "pad_piece": "[PAD]", "bos_id": 1, "bos_piece": "[CLS]", "eos_id": 2, "eos_piece": "[SEP]",
                "unk_id": 3, "unk_piece": "[UNK]"},
}  # fmt: skip
"""Training options that give a SentencePiece model a family's first pieces; T5 has those of Pegasus."""


@pytest.fixture(scope="session")
def pieces(news: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A SentencePiece model of 400 pieces with a family's first pieces."""
    models: dict[str, Path] = {}

    def train(family: str = "llama") -> Path:
        if family not in models:
            prefix = tmp_path_factory.mktemp("spm") / "m"
            options: Any = {"input": str(news), "model_prefix": str(prefix), "vocab_size": 400, "minloglevel": 2}
            sentencepiece.SentencePieceTrainer.train(**options, **FIRST[family])
            models[family] = prefix.with_suffix(".model")
        return models[family]

    return train


def _folder(folder: Path, model: Path, name: str, **files: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(model.read_bytes())
    for file, content in files.items():
        (folder / f"{file}.json").write_text(json.dumps(content))
    return folder


def _proto(model: Path) -> Any:
    """The part of a model's file that the converters of transformers read."""
    read = SentencePieceFile.read(model.read_bytes())
    return SimpleNamespace(pieces=[SimpleNamespace(piece=piece.text, score=piece.score) for piece in read.pieces])


def _as_bytes(text: str) -> bytes:
    return text.replace(SPACE, " ").encode()


PEGASUS = {"pad_token": "<pad>", "eos_token": "</s>", "mask_token": "<mask_2>", "mask_token_sent": "<mask_1>",
           "mask_token_id": 3, "offset": 103}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "converter", "original"),
    [
        ("XLMRobertaTokenizer", converters.XLMRobertaConverter, {}),
        ("LayoutXLMTokenizer", converters.XLMRobertaConverter, {}),
        ("CamembertTokenizer", converters.CamembertConverter, {}),
        ("MBartTokenizer", converters.MBartConverter, {}),
        ("MBart50TokenizerFast", converters.MBart50Converter, {}),
        ("XGLMTokenizer", converters.XGLMConverter, {}),
        ("SeamlessM4TTokenizer", converters.SeamlessM4TConverter, {}),
        ("PegasusTokenizer", converters.PegasusConverter, PEGASUS),
        ("T5Tokenizer", converters.T5Converter, {"_extra_ids": 100}),
    ],
)
def test_ids_are_those_of_the_converters_of_transformers(
    pieces: Callable[..., Path], tmp_path: Path, name: str, converter: Any, original: dict[str, Any]
):
    model = pieces("pegasus" if name in ("PegasusTokenizer", "T5Tokenizer") else "llama")
    file = "spiece.model" if name in ("PegasusTokenizer", "T5Tokenizer") else "sentencepiece.bpe.model"
    tokenizer = load_tokenizer(_folder(tmp_path, model, file, tokenizer_config={"tokenizer_class": name}))
    oracle = SimpleNamespace(original_tokenizer=SimpleNamespace(**original))
    wanted = [text for text, _ in converter.vocab(oracle, _proto(model))]
    assert [tokenizer.vocab.token(i) for i in range(tokenizer.vocab.size)] == list(map(_as_bytes, wanted))
    text = "the minister"
    ids = tokenizer.encode([text])[0].tolist()
    assert "".join(wanted[i] for i in ids) == f"{SPACE}the{SPACE}minister"


@pytest.mark.parametrize(
    "name",
    [
        "XLMRobertaTokenizer",
        "CamembertTokenizer",
        "MBartTokenizer",
        "MBart50Tokenizer",
        "T5Tokenizer",
        "DebertaV2Tokenizer",
    ],
)
def test_tokenizers_that_transformers_makes_of_the_folder_have_this_vocabulary(
    pieces: Callable[..., Path], tmp_path: Path, name: str
):
    file = {"T5Tokenizer": "spiece.model", "DebertaV2Tokenizer": "spm.model"}.get(name, "sentencepiece.bpe.model")
    model = pieces({"T5Tokenizer": "pegasus", "DebertaV2Tokenizer": "deberta"}.get(name, "llama"))
    folder = _folder(tmp_path, model, file, tokenizer_config={"tokenizer_class": name})
    theirs = getattr(transformers, name).from_pretrained(folder)
    ours = load_tokenizer(folder)
    for text in TEXTS:
        assert ours.encode([text])[0].tolist() == theirs(text, add_special_tokens=False)["input_ids"]
    saved = tmp_path / "saved" / "tokenizer.json"
    saved.parent.mkdir()
    saved.write_text(theirs.backend_tokenizer.to_str())
    other = load_tokenizer(saved).vocab
    assert [ours.vocab.token(i) for i in range(ours.vocab.size)] == [other.token(i) for i in range(other.size)]


def test_pegasus_has_the_ids_of_its_published_vocabulary(pieces: Callable[..., Path], tmp_path: Path):
    """pegasus-large has 0 <pad>, 1 </s>, 2 <mask_1>, 3 <mask_2>, 4 <unk_2> … 104 <unk_102>, 105 <unk>, then text."""
    model = pieces("pegasus")
    folder = _folder(tmp_path, model, "spiece.model", config={"model_type": "pegasus"})
    vocab = load_tokenizer(folder).vocab
    assert [vocab.display(i) for i in (0, 1, 2, 3, 4, 104, 105)] == [
        "<pad>", "</s>", "<mask_1>", "<mask_2>", "<unk_2>", "<unk_102>", "<unk>",
    ]  # fmt: skip
    assert all(vocab.status_of(i) is TokenStatus.SPECIAL for i in range(106))
    assert vocab.size == 400 + 103


def test_big_bird_pegasus_does_not_shift_ids(pieces: Callable[..., Path], tmp_path: Path):
    model, named = pieces("pegasus"), {"tokenizer_class": "PegasusTokenizer", "offset": 0, "mask_token_sent": None}
    kind = {"model_type": "bigbird_pegasus"}
    folder = _folder(tmp_path, model, "spiece.model", config=kind, tokenizer_config=named)
    assert load_tokenizer(folder).vocab.fingerprint == load_tokenizer(model).vocab.fingerprint
    for given in ({"tokenizer_class": "PegasusTokenizer"}, {}):
        folder = _folder(tmp_path, model, "spiece.model", config=kind, tokenizer_config=given)
        with pytest.raises(TokenizerError, match="offset"):
            load_tokenizer(folder)


def test_nllb_has_its_language_codes_where_a_file_lists_them(pieces: Callable[..., Path], tmp_path: Path):
    named, codes = {"tokenizer_class": "NllbTokenizer"}, ["ace_Arab", "fra_Latn", "zul_Latn"]
    folder = _folder(tmp_path, pieces(), "sentencepiece.bpe.model", tokenizer_config=named)
    with pytest.raises(TokenizerError, match="lists its language codes"):
        load_tokenizer(folder)
    _folder(folder, pieces(), "sentencepiece.bpe.model", special_tokens_map={"additional_special_tokens": codes})
    vocab = load_tokenizer(folder).vocab
    assert [vocab.display(i) for i in (0, 1, 2, 3, *range(401, 405))] == [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        *codes,
        "<mask>",
    ]
    wanted = [text for text, _ in converters.NllbConverter.vocab(None, _proto(pieces()))]
    assert [vocab.token(i) for i in range(401)] == list(map(_as_bytes, wanted))
    decoder = {str(401 + n): {"content": text, "special": True} for n, text in enumerate([*codes, "<mask>"])}
    folder = _folder(tmp_path / "new", pieces(), "sentencepiece.bpe.model",
                     tokenizer_config=named | {"added_tokens_decoder": decoder})  # fmt: skip
    assert load_tokenizer(folder).vocab.fingerprint == vocab.fingerprint


@pytest.mark.parametrize(
    ("config", "name"),
    [({"model_type": "xlm-roberta"}, "XLMRobertaTokenizer"), ({"model_type": "xglm"}, "XGLMTokenizer"),
     ({"model_type": "camembert", "tokenizer_class": "PreTrainedTokenizerFast"}, "CamembertTokenizer"),
     ({"model_type": "mbart", "tokenizer_class": "MBart50Tokenizer"}, "MBart50Tokenizer")],
)  # fmt: skip
def test_the_class_follows_from_the_models_type(
    pieces: Callable[..., Path], tmp_path: Path, config: dict[str, str], name: str
):
    one = load_tokenizer(_folder(tmp_path / "a", pieces(), "sentencepiece.bpe.model", config=config))
    other = _folder(tmp_path / "b", pieces(), "sentencepiece.bpe.model", tokenizer_config={"tokenizer_class": name})
    assert one.vocab.fingerprint == load_tokenizer(other).vocab.fingerprint


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": {"tokenizer_class": name}}
        for name in ("M2M100Tokenizer", "BarthezTokenizer", "PLBartTokenizer")
    ]
    + [{"config": {"model_type": kind}} for kind in ("mbart", "m2m_100", "speech_to_text", "bigbird_pegasus")],
)
def test_a_class_that_shifts_ids_otherwise_is_refused_by_name(
    pieces: Callable[..., Path], tmp_path: Path, files: dict[str, Any]
):
    folder = _folder(tmp_path, pieces(), "sentencepiece.bpe.model", **files)
    with pytest.raises(TokenizerError, match="has the tokenizer class ") as caught:
        load_tokenizer(folder)
    assert "tokenizer.json" in caught.value.hint
    (folder / "copy.model").write_bytes(pieces().read_bytes())
    assert load_tokenizer(folder / "copy.model").vocab.size == 400


def test_shifted_ids_are_drawn_and_kept_apart_in_the_cache(pieces: Callable[..., Path], tmp_path: Path):
    shifted = load_tokenizer(
        _folder(tmp_path, pieces(), "spiece.model", tokenizer_config={"tokenizer_class": "XLMRobertaTokenizer"})
    )
    plain = load_tokenizer(pieces())
    assert isinstance(shifted, SamplingTokenizer)
    assert isinstance(plain, SamplingTokenizer)
    assert shifted.sha256 != plain.sha256
    seeds = np.arange(len(TEXTS), dtype=np.uint32)
    for one, other in ((shifted.encode(TEXTS), plain.encode(TEXTS)),
                       (shifted.sample(TEXTS, 0.2, seeds), plain.sample(TEXTS, 0.2, seeds))):  # fmt: skip
        assert one[1].tolist() == other[1].tolist()
        assert one[0].tolist() == [3 if token_id == 0 else token_id + 1 for token_id in other[0].tolist()]


def _head(folder: Path, rows: int) -> Path:
    head = np.random.default_rng(3).normal(size=(rows, 12)).astype(np.float32)
    folder.mkdir(exist_ok=True)
    save_file({"lm_head.weight": head}, folder / "model.safetensors")
    return folder


def _build(model: Path, store: Path, insist: bool = False, tokenizer: Path | None = None) -> tuple[Bank, list[str]]:
    notes: list[str] = []

    class Progress(QuietProgress):
        def note(self, text: str) -> None:
            notes.append(text)

    head = LMHeadConfig(model=model, accept_other_tokenizer=insist)
    config = build_config(
        source="lm-head", name="m", store=store, lm_head=head, tokenizer=tokenizer, neighbors=NeighborsConfig(k=0)
    )
    return costbank.build(config, Progress()), notes


def test_a_head_of_xlm_roberta_has_its_rows_at_the_shifted_ids(pieces: Callable[..., Path], tmp_path: Path):
    decoder = {str(i): {"content": text} for i, text in enumerate(("<s>", "<pad>", "</s>", "<unk>"))}
    named = {"tokenizer_class": "XLMRobertaTokenizer", "added_tokens_decoder": decoder}
    folder = _head(_folder(tmp_path / "m", pieces(), "sentencepiece.bpe.model", tokenizer_config=named), 402)
    bank, notes = _build(folder, tmp_path / "store")
    assert not any("padding" in note for note in notes)
    assert bank.vocab.display(401) == "<mask>"
    check_tokenizer(bank, transformers.XLMRobertaTokenizer.from_pretrained(folder))


def test_a_file_named_as_those_of_fairseq_is_refused_where_nothing_names_its_class(
    pieces: Callable[..., Path], tmp_path: Path
):
    folder = _head(_folder(tmp_path / "m", pieces(), "sentencepiece.bpe.model"), 402)
    with pytest.raises(TokenizerError, match=r"has 400 pieces, but tensor 'lm_head\.weight' has 402 rows") as caught:
        _build(folder, tmp_path / "store")
    assert "XLMRobertaTokenizer" in caught.value.hint
    assert _build(folder, tmp_path / "store", insist=True)[0].size == 402
    assert _build(_head(folder, 400), tmp_path / "store")[0].size == 400
    other = _head(_folder(tmp_path / "o", pieces(), "spiece.model"), 402)
    assert _build(other, tmp_path / "store")[0].size == 402
    named = _folder(tmp_path / "m", pieces(), "sentencepiece.bpe.model", config={"tokenizer_class": "LlamaTokenizer"})
    assert _build(_head(named, 402), tmp_path / "store")[0].vocab.display(1) == "<s>"


def test_a_given_model_without_the_class_of_the_models_configuration_is_refused(
    pieces: Callable[..., Path], tmp_path: Path
):
    model = _head(tmp_path / "m", 402)
    (model / "config.json").write_text('{"model_type": "xlm-roberta"}')
    with pytest.raises(TokenizerError, match="has the tokenizer class XLMRobertaTokenizer, which shifts ids"):
        _build(model, tmp_path / "store", tokenizer=pieces())
    assert _build(model, tmp_path / "store", insist=True, tokenizer=pieces())[0].size == 402


def test_tokens_added_to_a_sentencepiece_model_have_text_and_status(pieces: Callable[..., Path], tmp_path: Path):
    listed = {"<|im_start|>": 400, "<|im_end|>": 401, "<tool>": 402, "<s>": 1}
    folder = _folder(tmp_path / "m", pieces(), "tokenizer.model", added_tokens=listed)
    bank, notes = _build(_head(folder, 403), tmp_path / "store")
    assert [(bank.vocab.display(i), bank.vocab.status_of(i).name) for i in range(400, 403)] == [
        ("<|im_start|>", "SPECIAL"), ("<|im_end|>", "SPECIAL"), ("<tool>", "OK"),
    ]  # fmt: skip
    assert not any("padding" in note for note in notes)
    _folder(folder, pieces(), "tokenizer.model", special_tokens_map={"additional_special_tokens": ["<tool>"]})
    assert load_tokenizer(folder).vocab.status_of(402) is TokenStatus.SPECIAL
    decoder = {str(i): {"content": text, "special": i > 400} for text, i in listed.items()}
    other = _folder(tmp_path / "o", pieces(), "tokenizer.model", tokenizer_config={"added_tokens_decoder": decoder})
    assert load_tokenizer(other).vocab.fingerprint == load_tokenizer(folder).vocab.fingerprint


def test_an_added_run_of_spaces_is_spaces_and_a_control_piece_can_be_renamed(
    pieces: Callable[..., Path], tmp_path: Path
):
    decoder = {"2": {"content": "<|end|>", "special": True}, "400": {"content": SPACE * 4}, "405": {"content": "[PAD]"}}
    folder = _folder(tmp_path, pieces(), "tokenizer.model", tokenizer_config={"added_tokens_decoder": decoder},
                     special_tokens_map={"pad_token": {"content": "[PAD]"}})  # fmt: skip
    vocab = load_tokenizer(folder).vocab
    assert (vocab.token(400), vocab.status_of(400)) == (b"    ", TokenStatus.OK)
    assert (vocab.token(2), vocab.status_of(2)) == (b"<|end|>", TokenStatus.SPECIAL)
    assert vocab.status_of(403) is TokenStatus.UNUSED
    assert (vocab.token(405), vocab.status_of(405)) == (b"[PAD]", TokenStatus.SPECIAL)


def test_a_piece_of_text_is_not_renamed(pieces: Callable[..., Path], tmp_path: Path):
    decoder = {str(i): {"content": text} for i, text in enumerate(("<s>", "<pad>", "</s>", "<unk>"))}
    folder = _folder(tmp_path, pieces(), "tokenizer.model", tokenizer_config={"added_tokens_decoder": decoder})
    with pytest.raises(TokenizerError, match=r"'<s>' is id 1 in tokenizer\.model and id 0 in tokenizer_config\.json"):
        load_tokenizer(folder)


def test_a_piece_that_is_special_by_a_file_stands_for_its_literal_text(pieces: Callable[..., Path], tmp_path: Path):
    """This is the case for Code Llama's ▁<PRE>, and tokenizer.json and GGUF files store it this way."""
    own = load_tokenizer(pieces()).vocab
    token_id = own.find(f"{SPACE}the")
    decoder = {str(token_id): {"content": f"{SPACE}the", "special": True}}
    for files in ({"tokenizer_config": {"added_tokens_decoder": decoder}},
                  {"special_tokens_map": {"additional_special_tokens": [f"{SPACE}the"]}}):  # fmt: skip
        vocab = load_tokenizer(_folder(tmp_path / next(iter(files)), pieces(), "tokenizer.model", **files)).vocab
        assert (vocab.token(token_id), vocab.status_of(token_id)) == (f"{SPACE}the".encode(), TokenStatus.SPECIAL)
