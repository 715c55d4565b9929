"""Decode UTF-8 text, and identify the encoding of other text, from its marks or by a guess from its characters.

Wide encodings (UTF-16, UTF-32) and ISO-2022-JP are identified with certainty. Others are guessed: a sample is decoded
in each encoding, and the guess is the encoding whose text has the largest share of its language's frequent characters.
Without clear evidence, there is no guess.
"""

import shlex
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE, getincrementaldecoder
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath

__all__ = [
    "Encoding",
    "TextFault",
    "certain_encoding",
    "decoded_text",
    "encoding_fault",
    "guessed_encoding",
    "without_mark",
]

_SAMPLE_BYTES = 1 << 16
_MIN_HIGH_CHARACTERS = 8
_MAX_WESTERN_DENSITY = 0.3  # the share of letters with accents; other scripts have hardly any ASCII between them

_CHINESE = "的一是不了在人有我他中大上到以要就出可也你生而子那得下自之年作"
_SIMPLIFIED = frozenset(_CHINESE + "这个们来为和国地说时会对能于着过发后里")
_TRADITIONAL = frozenset(_CHINESE + "這個們來為和國地說時會對能於著過發後裡")
_KOREAN = frozenset("이다는에의하고을가은지를한도로기사서어나자있라리으시대인것스그들아수정해")
_KANA = frozenset(map(chr, range(0x3041, 0x30FF)))
_RUSSIAN = frozenset("оеаинтсрвлкмдпуяыьгзбчйхжшю")
_GREEK = frozenset("αβγδεζηθικλμνξοπρστυφχψωςάέήίόύώ")
_WESTERN = frozenset("àâäáãåæçèéêëìíîïñòóôöõøùúûüýÿœßÀÂÄÁÅÆÇÈÉÊËÍÎÑÓÔÖØÚÛÜŒ’‘“”‚„–—…«»€°·ºª§©®£¿¡\xa0")


@dataclass(frozen=True)
class Encoding:
    """An encoding: its name for people, and its name in iconv."""

    name: str
    iconv: str

    def conversion(self, path: str, unpack: str = "") -> str:
        """A shell command that writes the file as UTF-8; `unpack` decompresses the file first, such as `gzip -dc`."""
        plain = PurePath(path.removesuffix(".gz").removesuffix(".zst"))
        source, target = shlex.quote(path), shlex.quote(str(plain.with_suffix(f".utf8{plain.suffix}")))
        begin = f"{unpack} {source} | iconv" if unpack else "iconv"
        end = f"> {target}" if unpack else f"{source} > {target}"
        return f"{begin} -f {self.iconv} -t UTF-8 {end}"


_MARKS = (
    (BOM_UTF32_LE, Encoding("UTF-32", "UTF-32")),  # before UTF-16, because it begins with that mark
    (BOM_UTF32_BE, Encoding("UTF-32", "UTF-32")),
    (BOM_UTF16_LE, Encoding("UTF-16", "UTF-16")),
    (BOM_UTF16_BE, Encoding("UTF-16", "UTF-16")),
)
_WIDE = (
    ("utf-32-le", Encoding("UTF-32 (without a byte-order mark)", "UTF-32LE")),
    ("utf-32-be", Encoding("UTF-32 (without a byte-order mark)", "UTF-32BE")),
    ("utf-16-le", Encoding("UTF-16 (without a byte-order mark)", "UTF-16LE")),
    ("utf-16-be", Encoding("UTF-16 (without a byte-order mark)", "UTF-16BE")),
)
_ISO_2022_JP = Encoding("ISO-2022-JP", "ISO-2022-JP")
_SHIFT_TO_KANJI = (b"\x1b$B", b"\x1b$@")


@dataclass(frozen=True)
class _Candidate:
    """An encoding, the frequent characters of its language, and the smallest share of these that counts as evidence."""

    codec: str
    encoding: Encoding
    frequent: frozenset[str]
    least_share: float


_CANDIDATES = (
    _Candidate("euc_jp", Encoding("EUC-JP", "EUC-JP"), _KANA, 0.3),
    _Candidate("cp932", Encoding("Shift-JIS", "CP932"), _KANA, 0.3),
    _Candidate("gb18030", Encoding("GBK or GB18030", "GB18030"), _SIMPLIFIED, 0.15),
    _Candidate("big5", Encoding("Big5", "BIG5"), _TRADITIONAL, 0.15),
    _Candidate("cp949", Encoding("EUC-KR", "CP949"), _KOREAN, 0.25),
    _Candidate("cp1251", Encoding("Windows-1251", "WINDOWS-1251"), _RUSSIAN, 0.7),
    _Candidate("koi8_r", Encoding("KOI8-R", "KOI8-R"), _RUSSIAN, 0.7),
    _Candidate("cp1253", Encoding("Windows-1253", "WINDOWS-1253"), _GREEK, 0.7),
    _Candidate("cp1252", Encoding("Latin-1 or Windows-1252", "WINDOWS-1252"), _WESTERN, 0.9),
)


def without_mark(data: bytes) -> bytes:
    """The bytes without a UTF-8 byte-order mark at their start."""
    return data.removeprefix(BOM_UTF8)


@dataclass(frozen=True)
class TextFault:
    """Why bytes are not UTF-8 text, and the position of the first bad byte."""

    reason: str
    byte: int


def decoded_text(data: bytes, skip_mark: bool = True) -> str | TextFault:
    """UTF-8 text as a string, or why it is not text; `skip_mark` drops a byte-order mark at its start.

    Data with a NUL byte is not text.
    """
    if (nul := data.find(b"\0")) >= 0:
        return TextFault("is not text: a NUL byte", nul)
    text = without_mark(data) if skip_mark else data
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = len(data) - len(text) + error.start
        return TextFault(f"is not UTF-8: byte 0x{data[byte]:02x}", byte)


def certain_encoding(head: bytes) -> Encoding | None:
    """The encoding of text that begins with `head`, if the text is certainly not UTF-8; otherwise None.

    UTF-16 and UTF-32 have a byte-order mark, or have NUL bytes and decode to nothing but characters and white space.
    """
    marked = next((encoding for mark, encoding in _MARKS if head.startswith(mark)), None)
    if marked or not head:
        return marked
    if any(shift in head for shift in _SHIFT_TO_KANJI) and head.isascii():
        return _ISO_2022_JP
    if b"\0" not in head:
        return None
    blanks = [(_blanks_in(head, codec), encoding) for codec, encoding in _WIDE]
    most, encoding = max(blanks, key=lambda pair: pair[0])
    return encoding if most else None


def guessed_encoding(sample: bytes) -> Encoding | None:
    """The likely encoding of text that is not UTF-8; None without evidence, or for UTF-8 with some bad bytes."""
    sample = sample[:_SAMPLE_BYTES]
    if b"\0" in sample:
        return None
    as_utf8 = sample.decode("utf-8", "replace")
    damaged = as_utf8.count("\ufffd")
    if sum(character > "\x7f" for character in as_utf8) - damaged >= damaged:
        return None
    scored = [(_score(sample, candidate), candidate) for candidate in _CANDIDATES]
    best, candidate = max(scored, key=lambda pair: pair[0])
    return candidate.encoding if best > 0 else None


def encoding_fault(sample: bytes, fault: str, conversion: Callable[[Encoding], str]) -> tuple[str, str]:
    """A message and a hint for text that is not UTF-8.

    Args:
        sample: the start of the text, or a part of it; the message names its encoding if that can be identified.
        fault: the `TextFault.reason`.
        conversion: returns the command that converts the text from an encoding to UTF-8.
    """
    if encoding := certain_encoding(sample):
        message = f"is {encoding.name} text, not UTF-8,"
    elif encoding := guessed_encoding(sample):
        message = f"{fault} (it looks like {encoding.name})"
    else:
        return fault, "give UTF-8 text"
    return message, f"convert it: {conversion(encoding)}"


def _blanks_in(head: bytes, codec: str) -> int:
    """The number of white-space characters of a sample in an encoding; 0 if it is not text in that encoding."""
    text = _decoded(head, codec)
    if not text or any(not (character.isprintable() or character in "\t\n\r\f\ufeff") for character in text):
        return 0
    return sum(character in " \n\r\t\u3000" for character in text)


def _score(sample: bytes, candidate: _Candidate) -> float:
    """The share of frequent characters, divided by the smallest share that counts as evidence; 0 below that."""
    text = _decoded(sample, candidate.codec)
    high = [character for character in text or "" if character > "\x7f"]
    if not high or any(character in "\ufffd\x80\x81" for character in high):
        return 0.0
    share = sum(character in candidate.frequent for character in high) / len(high)
    density = len(high) / len(text or "")
    if candidate.frequent is _WESTERN:
        plausible = density <= _MAX_WESTERN_DENSITY
    else:
        plausible = density > _MAX_WESTERN_DENSITY and len(high) >= _MIN_HIGH_CHARACTERS
    if not plausible:
        return 0.0
    return share / candidate.least_share if share >= candidate.least_share else 0.0


def _decoded(sample: bytes, codec: str) -> str | None:
    """A sample as text, without an incomplete last character; None if it is not in this encoding."""
    decode: Callable[[bytes], str] = getincrementaldecoder(codec)().decode
    try:
        return decode(sample)
    except (UnicodeDecodeError, ValueError):
        return None
