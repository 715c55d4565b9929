"""The ids that each tokenizer class assigns to the pieces of a SentencePiece model.

Models from fairseq begin with four special tokens of their own, and shift the other pieces by one. Pegasus shifts them
by 103, and other classes add tokens after the last piece. tokenizer_config.json or config.json names the class. The
tests compare these ids with those of transformers. A class that shifts ids in an unsupported way is refused.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from costbank.errors import TokenizerError
from costbank.tokenizers.added_tokens import TokenizerSettings

__all__ = ["IdLayout", "assumes_unshifted_ids", "id_layout", "shifts_ids", "tokenizer_class_of"]

_Item = int | str
"""The token of an id: the number of a piece, or the text of a special token."""

_FAIRSEQ = ("<s>", "<pad>", "</s>", "<unk>")
_MBART = (
    "ar_AR", "cs_CZ", "de_DE", "en_XX", "es_XX", "et_EE", "fi_FI", "fr_XX", "gu_IN", "hi_IN", "it_IT", "ja_XX", "kk_KZ",
    "ko_KR", "lt_LT", "lv_LV", "my_MM", "ne_NP", "nl_XX", "ro_RO", "ru_RU", "si_LK", "tr_TR", "vi_VN", "zh_CN",
)  # fmt: skip
_MBART50 = (
    "af_ZA", "az_AZ", "bn_IN", "fa_IR", "he_IL", "hr_HR", "id_ID", "ka_GE", "km_KH", "mk_MK", "ml_IN", "mn_MN", "mr_IN",
    "pl_PL", "ps_AF", "pt_XX", "sv_SE", "sw_KE", "ta_IN", "te_IN", "th_TH", "tl_XX", "uk_UA", "ur_PK", "xh_ZA", "gl_ES",
    "sl_SI",
)  # fmt: skip
_FLORES = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")
_XGLM_UNUSED, _PEGASUS_OFFSET, _T5_EXTRA_IDS = 7, 103, 100

_CLASS_OF_MODEL_TYPE = {
    "xlm-roberta": "XLMRobertaTokenizer",
    "xlm-roberta-xl": "XLMRobertaTokenizer",
    "camembert": "CamembertTokenizer",
    "nllb-moe": "NllbTokenizer",
    "xglm": "XGLMTokenizer",
    "seamless_m4t": "SeamlessM4TTokenizer",
    "seamless_m4t_v2": "SeamlessM4TTokenizer",
    "pegasus": "PegasusTokenizer",
    "pegasus_x": "PegasusTokenizer",
    "t5": "T5Tokenizer",
    "longt5": "T5Tokenizer",
    "switch_transformers": "T5Tokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
    "plbart": "PLBartTokenizer",
    "speech_to_text": "Speech2TextTokenizer",
    "marian": "MarianTokenizer",
    "ernie_m": "ErnieMTokenizer",
    "xlm-prophetnet": "XLMProphetNetTokenizer",
    "mbart": "MBartTokenizer or MBart50Tokenizer",
    "m2m_100": "M2M100Tokenizer or NllbTokenizer",
    "bigbird_pegasus": "PegasusTokenizer with another offset",
}
"""The class for each `model_type`, if no file names one. Types with two classes are refused: their ids differ."""

_UNSUPPORTED = frozenset({
    "BarthezTokenizer", "BartphoTokenizer", "ErnieMTokenizer", "M2M100Tokenizer", "MarianTokenizer", "MLukeTokenizer",
    "PLBartTokenizer", "Speech2TextTokenizer", "XLMProphetNetTokenizer",
}) | {name for name in _CLASS_OF_MODEL_TYPE.values() if " " in name}  # fmt: skip
_UNSHIFTED = frozenset({
    "AlbertTokenizer", "BertGenerationTokenizer", "BigBirdTokenizer", "CodeLlamaTokenizer", "CpmTokenizer",
    "FNetTokenizer", "GPTSw3Tokenizer", "GemmaTokenizer", "LlamaTokenizer", "ReformerTokenizer", "RemBertTokenizer",
    "SiglipTokenizer", "SpeechT5Tokenizer", "UdopTokenizer", "XLNetTokenizer",
})  # fmt: skip
"""Classes in which the id of a piece is its number."""

_FAIRSEQ_FILE = "sentencepiece.bpe.model"


@dataclass(frozen=True, eq=False)
class IdLayout:
    """The ids that a tokenizer class assigns.

    Attributes:
        items: for each id, the number of its piece or the text of its special token.
        piece_ids: the id of each piece. Pieces without an id have the id of the unknown token.
        shifted: whether the id of any piece differs from its number.
        appended: the ids after the last piece's id.
    """

    items: tuple[_Item, ...]
    piece_ids: Int32[np.ndarray, "pieces"]
    shifted: bool
    appended: frozenset[int]

    @classmethod
    def build(cls, items: Sequence[_Item], pieces: int, unknown: int) -> "IdLayout":
        """The layout with these items by id, for a model of `pieces` pieces; `unknown` is the unknown piece."""
        id_of_piece = {item: token_id for token_id, item in enumerate(items) if isinstance(item, int)}
        unknown_id = id_of_piece.get(unknown, items.index("<unk>") if "<unk>" in items else 0)
        piece_ids = np.full(pieces, unknown_id, np.int32)
        piece_ids[list(id_of_piece)] = list(id_of_piece.values())
        shifted = any(piece != token_id for piece, token_id in id_of_piece.items())
        after_last = max(id_of_piece.values(), default=-1) + 1
        return cls(tuple(items), piece_ids, shifted, frozenset(range(after_last, len(items))))


def tokenizer_class_of(settings: TokenizerSettings) -> str:
    """The tokenizer's class: the class that a file names, else that of the model's type; empty if neither is known."""
    name = settings.tokenizer_class
    is_known = name in _LAYOUTS or name in _UNSUPPORTED | _UNSHIFTED
    return name if is_known else _CLASS_OF_MODEL_TYPE.get(settings.model_type, name)


def shifts_ids(settings: TokenizerSettings) -> bool:
    """Whether the class assigns ids that differ from the pieces' numbers."""
    name = tokenizer_class_of(settings)
    return name in _UNSUPPORTED or (name in _LAYOUTS and name not in ("T5Tokenizer", "DebertaV2Tokenizer"))


def assumes_unshifted_ids(path: Path, settings: TokenizerSettings) -> bool:
    """Whether the file has the name that models from fairseq use, but no file says whether its ids are shifted.

    Added tokens with the first ids settle this: they must agree with the pieces that have these numbers.
    """
    known = tokenizer_class_of(settings) in _LAYOUTS or tokenizer_class_of(settings) in _UNSHIFTED
    return path.name == _FAIRSEQ_FILE and not known and min(settings.added, default=len(_FAIRSEQ)) >= len(_FAIRSEQ)


def id_layout(path: Path, settings: TokenizerSettings, pieces: Sequence[str], unknown: int) -> IdLayout | None:
    """The ids that the tokenizer's class assigns; None if they are the pieces' numbers.

    Args:
        path: the SentencePiece model, for messages.
        settings: the contents of the files next to it.
        pieces: the text of each piece.
        unknown: the number of the unknown piece.

    Raises:
        TokenizerError: the class shifts ids in a way that is not supported.
    """
    name = tokenizer_class_of(settings)
    if name in _UNSUPPORTED:
        raise _refusal(path, name, "whose ids differ from the pieces' numbers in an unsupported way")
    if name not in _LAYOUTS:
        return None
    items = _LAYOUTS[name](path, settings, pieces)
    return IdLayout.build(items, len(pieces), unknown)


def _refusal(path: Path, name: str, why: str) -> TokenizerError:
    return TokenizerError(
        f"{path} has the tokenizer class {name}, {why}",
        "give the model's tokenizer.json (save_pretrained of a fast tokenizer writes one). If you copy the file to "
        "another name, its ids are the pieces' numbers",
    )


def _xlm_roberta(path: Path, settings: TokenizerSettings, pieces: Sequence[str]) -> list[_Item]:
    return [*_FAIRSEQ, *range(3, len(pieces)), "<mask>"]


def _camembert(path: Path, settings: TokenizerSettings, pieces: Sequence[str]) -> list[_Item]:
    special = ("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED")
    return [*special, *range(1, len(pieces)), "<mask>"]


def _mbart(path: Path, settings: TokenizerSettings, pieces: Sequence[str]) -> list[_Item]:
    return [*_FAIRSEQ, *range(3, len(pieces)), *_MBART, "<mask>"]


def _mbart50(path: Path, settings: TokenizerSettings, pieces: Sequence[str]) -> list[_Item]:
    return [*_FAIRSEQ, *range(3, len(pieces)), *_MBART, *_MBART50, "<mask>"]


def _nllb(path: Path, settings: TokenizerSettings, pieces: Sequence[str]) -> list[_Item]:
    codes = [text for text in settings.special if _FLORES.fullmatch(text)]
    if not codes and not any(_FLORES.fullmatch(token.text) for token in settings.added.values()):
        raise _refusal(path, "NllbTokenizer", "and no file next to it lists its language codes")
    shifted: list[_Item] = [*_FAIRSEQ, *range(3, len(pieces))]
    return shifted if settings.added else [*shifted, *codes, "<mask>"]


def _xglm(path: Path, settings: TokenizerSettings, pieces: Sequence[str]) -> list[_Item]:
    return [*_FAIRSEQ, *range(3, len(pieces)), *(f"<madeupword{number}>" for number in range(_XGLM_UNUSED))]


def _seamless(path: Path, settings: TokenizerSettings, pieces: Sequence[str]) -> list[_Item]:
    return ["<pad>", "<unk>", "<s>", "</s>", *range(3, len(pieces))]


def _pegasus(path: Path, settings: TokenizerSettings, pieces: Sequence[str]) -> list[_Item]:
    options = settings.options
    if "offset" not in options and settings.model_type == "bigbird_pegasus":
        raise _refusal(path, "PegasusTokenizer", "and no file next to it states the offset of its ids")
    offset = options.get("offset", _PEGASUS_OFFSET)
    if offset == 0:
        return list(range(len(pieces)))
    mask = _token_text(options, "mask_token", "<mask_2>")
    sentence_mask = _token_text(options, "mask_token_sent", "<mask_1>")
    if not mask or not sentence_mask or not isinstance(offset, int) or offset < 2:
        raise _refusal(path, "PegasusTokenizer", f"with the offset {offset!r} and without its two mask tokens")
    unused = (f"<unk_{number}>" for number in range(2, offset))
    return ["<pad>", "</s>", sentence_mask, mask, *unused, *range(2, len(pieces))]


def _t5(path: Path, settings: TokenizerSettings, pieces: Sequence[str]) -> list[_Item]:
    """The sentinels of masked spans follow the last piece, unless the model has pieces for them, like mT5."""
    extra_ids = settings.options.get("extra_ids", _T5_EXTRA_IDS)
    if not isinstance(extra_ids, int) or extra_ids < 0:
        raise _refusal(path, "T5Tokenizer", f"with {extra_ids!r} extra ids")
    if any("<extra_id_0>" in piece for piece in pieces):
        extra_ids = 0
    return [*range(len(pieces)), *(f"<extra_id_{number}>" for number in reversed(range(extra_ids)))]


def _deberta(path: Path, settings: TokenizerSettings, pieces: Sequence[str]) -> list[_Item]:
    mask = _token_text(settings.options, "mask_token", "[MASK]")
    return [*range(len(pieces)), *([mask] if mask and mask not in pieces else [])]


def _token_text(options: Mapping[str, object], name: str, default: str) -> str | None:
    value = options.get(name, default)
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


_LAYOUTS: dict[str, Callable[[Path, TokenizerSettings, Sequence[str]], list[_Item]]] = {
    "XLMRobertaTokenizer": _xlm_roberta,
    "LayoutXLMTokenizer": _xlm_roberta,
    "CamembertTokenizer": _camembert,
    "MBartTokenizer": _mbart,
    "MBart50Tokenizer": _mbart50,
    "NllbTokenizer": _nllb,
    "XGLMTokenizer": _xglm,
    "SeamlessM4TTokenizer": _seamless,
    "PegasusTokenizer": _pegasus,
    "T5Tokenizer": _t5,
    "DebertaV2Tokenizer": _deberta,
}
