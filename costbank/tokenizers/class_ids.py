"""Ids that tokenizer classes give to the pieces of a SentencePiece model.

Models that come from fairseq begin with four special tokens of their own and shift the pieces behind them by one;
Pegasus shifts them by 103, and other classes put tokens after the last piece. The class is named by
tokenizer_config.json or config.json; ids are tested against those of transformers. A class that is known to shift ids,
but is not supported here, is refused.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from costbank.errors import TokenizerError
from costbank.tokenizers.added_tokens import TokenizerSettings

__all__ = ["IdLayout", "class_of", "ids_are_assumed", "layout_of", "moves_ids"]

_Item = int | str
"""What an id stands for: a piece by its number, or a special token by its text."""

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
_XGLM_SPARE, _PEGASUS_OFFSET, _T5_EXTRA = 7, 103, 100

_OF_TYPES = {
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
    "bigbird_pegasus": "PegasusTokenizer with an offset of its own",
}
"""The class where no file names one. Types of two classes are refused, as these differ in their ids."""

_REFUSED = frozenset({
    "BarthezTokenizer", "BartphoTokenizer", "ErnieMTokenizer", "M2M100Tokenizer", "MarianTokenizer", "MLukeTokenizer",
    "PLBartTokenizer", "Speech2TextTokenizer", "XLMProphetNetTokenizer",
}) | {name for name in _OF_TYPES.values() if " " in name}  # fmt: skip
_UNMOVED = frozenset({
    "AlbertTokenizer", "BertGenerationTokenizer", "BigBirdTokenizer", "CodeLlamaTokenizer", "CpmTokenizer",
    "FNetTokenizer", "GPTSw3Tokenizer", "GemmaTokenizer", "LlamaTokenizer", "ReformerTokenizer", "RemBertTokenizer",
    "SiglipTokenizer", "SpeechT5Tokenizer", "UdopTokenizer", "XLNetTokenizer",
})  # fmt: skip
"""Classes whose ids are the pieces' numbers."""

_FAIRSEQ_FILE = "sentencepiece.bpe.model"


@dataclass(frozen=True, eq=False)
class IdLayout:
    """Which piece each id of a model stands for.

    Attributes:
        items: by id, the number of a piece, or the text of a special token that takes its place.
        of_pieces: the id of each piece. Pieces without one have that of the unknown token.
        moved: whether any piece has another id than its number.
        appended: ids after those of the last piece.
    """

    items: tuple[_Item, ...]
    of_pieces: Int32[np.ndarray, "pieces"]
    moved: bool
    appended: frozenset[int]

    @classmethod
    def of(cls, items: Sequence[_Item], pieces: int, unknown: int) -> "IdLayout":
        """The layout of ids that stand for `items`, for so many pieces, of which `unknown` is the unknown one."""
        placed = {item: token_id for token_id, item in enumerate(items) if isinstance(item, int)}
        fallback = placed.get(unknown, items.index("<unk>") if "<unk>" in items else 0)
        of_pieces = np.full(pieces, fallback, np.int32)
        of_pieces[list(placed)] = list(placed.values())
        moved = any(item != token_id for item, token_id in placed.items())
        return cls(tuple(items), of_pieces, moved, frozenset(range(max(placed.values(), default=-1) + 1, len(items))))


def class_of(settings: TokenizerSettings) -> str:
    """The tokenizer's class: the one that is named, else that of the model's type; empty where neither is known."""
    known = settings.tokenizer_class in _LAYOUTS or settings.tokenizer_class in _REFUSED | _UNMOVED
    return settings.tokenizer_class if known else _OF_TYPES.get(settings.model_type, settings.tokenizer_class)


def moves_ids(settings: TokenizerSettings) -> bool:
    """Whether the class gives pieces other ids than their numbers."""
    name = class_of(settings)
    return name in _REFUSED or (name in _LAYOUTS and name not in ("T5Tokenizer", "DebertaV2Tokenizer"))


def ids_are_assumed(path: Path, settings: TokenizerSettings) -> bool:
    """Whether a model has the file name that fairseq's have, while nothing says whether it shifts ids as they do.

    Added tokens that are among the first say so, as they must be the pieces of these numbers.
    """
    known = class_of(settings) in _LAYOUTS or class_of(settings) in _UNMOVED
    return path.name == _FAIRSEQ_FILE and not known and min(settings.added, default=len(_FAIRSEQ)) >= len(_FAIRSEQ)


def layout_of(path: Path, settings: TokenizerSettings, pieces: Sequence[str], unknown: int) -> IdLayout | None:
    """The ids of a class that does not number pieces as they come; None where they are the pieces' numbers.

    Args:
        path: the SentencePiece model, for messages.
        settings: what the files next to it say.
        pieces: its pieces' texts.
        unknown: the number of its unknown piece.

    Raises:
        TokenizerError: the class is known to shift ids in a way that is not supported.
    """
    name = class_of(settings)
    if name in _REFUSED:
        raise _refusal(path, name, "which gives pieces other ids than their numbers")
    if name not in _LAYOUTS:
        return None
    items = _LAYOUTS[name](path, settings, pieces)
    return IdLayout.of(items, len(pieces), unknown)


def _refusal(path: Path, name: str, why: str) -> TokenizerError:
    return TokenizerError(
        f"{path} is of the tokenizer class {name}, {why}",
        "give the model's tokenizer.json (save_pretrained of a fast tokenizer writes one). A copy of the file under "
        "another name is read with ids that are the pieces' numbers",
    )


def _xlm_roberta(path: Path, settings: TokenizerSettings, pieces: Sequence[str]) -> list[_Item]:  # noqa: ARG001
    return [*_FAIRSEQ, *range(3, len(pieces)), "<mask>"]


def _camembert(path: Path, settings: TokenizerSettings, pieces: Sequence[str]) -> list[_Item]:  # noqa: ARG001
    spare = ("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED")
    return [*spare, *range(1, len(pieces)), "<mask>"]


def _mbart(path: Path, settings: TokenizerSettings, pieces: Sequence[str]) -> list[_Item]:  # noqa: ARG001
    return [*_FAIRSEQ, *range(3, len(pieces)), *_MBART, "<mask>"]


def _mbart50(path: Path, settings: TokenizerSettings, pieces: Sequence[str]) -> list[_Item]:  # noqa: ARG001
    return [*_FAIRSEQ, *range(3, len(pieces)), *_MBART, *_MBART50, "<mask>"]


def _nllb(path: Path, settings: TokenizerSettings, pieces: Sequence[str]) -> list[_Item]:
    codes = [text for text in settings.special if _FLORES.fullmatch(text)]
    if not codes and not any(_FLORES.fullmatch(token.text) for token in settings.added.values()):
        raise _refusal(path, "NllbTokenizer", "and no file next to it lists its language codes")
    shifted: list[_Item] = [*_FAIRSEQ, *range(3, len(pieces))]
    return shifted if settings.added else [*shifted, *codes, "<mask>"]


def _xglm(path: Path, settings: TokenizerSettings, pieces: Sequence[str]) -> list[_Item]:  # noqa: ARG001
    return [*_FAIRSEQ, *range(3, len(pieces)), *(f"<madeupword{number}>" for number in range(_XGLM_SPARE))]


def _seamless(path: Path, settings: TokenizerSettings, pieces: Sequence[str]) -> list[_Item]:  # noqa: ARG001
    return ["<pad>", "<unk>", "<s>", "</s>", *range(3, len(pieces))]


def _pegasus(path: Path, settings: TokenizerSettings, pieces: Sequence[str]) -> list[_Item]:
    options = settings.options
    if "offset" not in options and settings.model_type == "bigbird_pegasus":
        raise _refusal(path, "PegasusTokenizer", "and no file next to it gives the offset of its ids")
    offset = options.get("offset", _PEGASUS_OFFSET)
    if offset == 0:
        return list(range(len(pieces)))
    mask, sentence = (_text(options, name, default) for name, default in
                      (("mask_token", "<mask_2>"), ("mask_token_sent", "<mask_1>")))  # fmt: skip
    if not mask or not sentence or not isinstance(offset, int) or offset < 2:
        raise _refusal(path, "PegasusTokenizer", f"with the offset {offset!r} and without its two mask tokens")
    spare = (f"<unk_{number}>" for number in range(2, offset))
    return ["<pad>", "</s>", sentence, mask, *spare, *range(2, len(pieces))]


def _t5(path: Path, settings: TokenizerSettings, pieces: Sequence[str]) -> list[_Item]:
    """Masks of spans after the last piece, unless the model has pieces for them, as mT5's has."""
    number = settings.options.get("extra_ids", _T5_EXTRA)
    if not isinstance(number, int) or number < 0:
        raise _refusal(path, "T5Tokenizer", f"with {number!r} extra ids")
    if any("<extra_id_0>" in piece for piece in pieces):
        number = 0
    return [*range(len(pieces)), *(f"<extra_id_{left}>" for left in reversed(range(number)))]


def _deberta(path: Path, settings: TokenizerSettings, pieces: Sequence[str]) -> list[_Item]:  # noqa: ARG001
    mask = _text(settings.options, "mask_token", "[MASK]")
    return [*range(len(pieces)), *([mask] if mask and mask not in pieces else [])]


def _text(options: Mapping[str, object], name: str, default: str) -> str | None:
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
