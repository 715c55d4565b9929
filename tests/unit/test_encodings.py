"""Text in encodings other than UTF-8: the error names the encoding in which Python wrote it."""

import subprocess
from pathlib import Path

import pytest

from costbank.encodings import TextFault, certain_encoding, decoded_text, encoding_fault, guessed_encoding, without_mark

CHINESE = "中国人民在这个世界上有很多不同的地方，我们要去看一看那些美丽的山水，他说这是最好的时候。\n"
TAIWAN = "這個世界上有很多不同的地方，我們要去看一看那些美麗的山水，他說這是最好的時候，我們來了。\n"
JAPANESE = "私は昨日、東京の図書館で本を読みました。とても面白かったです。カタカナもあります。\n"
KOREAN = "나는 어제 서울에 있는 도서관에서 책을 읽었다. 이것은 아주 재미있는 이야기이고 그들은 좋아하였다.\n"
RUSSIAN = "Вчера я читал книгу в библиотеке, и она была очень интересной. Потом мы пошли домой.\n"
GREEK = "Χθες διάβασα ένα βιβλίο στη βιβλιοθήκη και ήταν πολύ ενδιαφέρον.\n"
FRENCH = "Voilà l’été où nous étions très heureux, déjà à côté de la forêt.\n"
POLISH = "Zażółć gęślą jaźń, łódź i źrebię są śliczne.\n"
ENGLISH = "the cat sat on the mat\n"

GUESSED = [
    (CHINESE, "gbk", "GBK or GB18030"), (CHINESE, "gb18030", "GBK or GB18030"), (TAIWAN, "big5", "Big5"),
    (JAPANESE, "shift_jis", "Shift-JIS"), (JAPANESE, "euc_jp", "EUC-JP"), (KOREAN, "euc_kr", "EUC-KR"),
    (RUSSIAN, "cp1251", "Windows-1251"), (RUSSIAN, "koi8-r", "KOI8-R"), (GREEK, "cp1253", "Windows-1253"),
    (FRENCH, "cp1252", "Latin-1 or Windows-1252"),
]  # fmt: skip
WIDE = [(text, codec) for text in (ENGLISH, FRENCH, RUSSIAN, CHINESE) for codec in ("utf-16", "utf-32")]
UNMARKED = ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]


@pytest.mark.parametrize(("text", "codec", "name"), GUESSED, ids=[codec for _, codec, _ in GUESSED])
@pytest.mark.parametrize("cut", [0, 1])
def test_an_encoding_is_guessed_by_what_its_text_says(text: str, codec: str, name: str, cut: int):
    sample = (text * 3).encode(codec)
    encoding = guessed_encoding(sample[: len(sample) - cut])
    assert encoding is not None
    assert encoding.name == name
    assert certain_encoding(sample) is None


@pytest.mark.parametrize(("text", "codec"), WIDE)
def test_a_wide_encoding_is_recognized_by_its_mark(text: str, codec: str):
    encoding = certain_encoding(text.encode(codec))
    assert encoding is not None
    assert encoding.name == codec.upper()


@pytest.mark.parametrize("codec", UNMARKED)
@pytest.mark.parametrize("text", [ENGLISH, FRENCH, RUSSIAN, CHINESE, JAPANESE])
@pytest.mark.parametrize("cut", [0, 1])
def test_a_wide_encoding_is_recognized_without_a_mark(text: str, codec: str, cut: int):
    sample = (text * 3).encode(codec)
    encoding = certain_encoding(sample[: len(sample) - cut])
    assert encoding is not None
    assert encoding.name == f"{codec.upper()[:6]} (without a byte-order mark)"
    assert encoding.iconv == codec.upper().replace("-L", "L").replace("-B", "B")


def test_iso_2022_jp_is_recognized_although_its_bytes_are_ascii():
    encoding = certain_encoding(JAPANESE.encode("iso2022_jp"))
    assert encoding is not None
    assert encoding.name == "ISO-2022-JP"


@pytest.mark.parametrize("text", [FRENCH, CHINESE, JAPANESE, KOREAN, RUSSIAN, "\ufeff" + FRENCH, "é\x1b[1mb\n"])
def test_utf8_is_no_other_encoding(text: str):
    assert certain_encoding(text.encode()) is None
    assert guessed_encoding(text.encode() + b"\xff") is None


@pytest.mark.parametrize(
    "sample",
    [bytes(range(256)), bytes(1000), b"", b"\0", POLISH.encode("iso8859-2"), RUSSIAN.encode("cp866"),
     "naïve café".encode() + b" caf\xe9 " + "déjà vu".encode()],
    ids=["all bytes", "zeros", "nothing", "a zero", "Latin-2", "CP866", "damaged UTF-8"],
)  # fmt: skip
def test_nothing_is_guessed_where_nothing_speaks_for_it(sample: bytes):
    assert encoding_fault(sample, "is not text", str) == ("is not text", "give UTF-8 text")


def test_the_conversion_that_a_hint_names_gives_the_text(tmp_path: Path):
    for text, codec in [
        (ENGLISH, "utf-16"),
        (CHINESE, "gbk"),
        (FRENCH, "latin-1"),
        (JAPANESE, "utf-16-be"),
        (RUSSIAN, "koi8-r"),
    ]:
        path = tmp_path / f"a file {codec}.txt"
        path.write_bytes(text.encode(codec, "replace"))
        encoding = certain_encoding(path.read_bytes()) or guessed_encoding(path.read_bytes() * 3)
        assert encoding is not None
        subprocess.run(encoding.conversion(str(path)), shell=True, check=True)
        assert path.with_suffix(".utf8.txt").read_text("utf-8") == path.read_bytes().decode(codec)


def test_a_byte_order_mark_is_taken_off_once():
    assert without_mark(b"\xef\xbb\xbfa\xef\xbb\xbf") == b"a\xef\xbb\xbf"
    assert without_mark(b"a") == b"a"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        ("h\u00f6her\n".encode(), "h\u00f6her\n"),
        (b"\xef\xbb\xbfa\xef\xbb\xbfb", "a\ufeffb"),
        (b"ab\xff", TextFault("is not UTF-8: byte 0xff", 2)),
        (b"\xef\xbb\xbfab\xff", TextFault("is not UTF-8: byte 0xff", 5)),
        (b"\xffab\0", TextFault("is not text: a NUL byte", 3)),
        (b"\xed\xa0\x80", TextFault("is not UTF-8: byte 0xed", 0)),
        ("\u65e5".encode()[:2], TextFault("is not UTF-8: byte 0xe6", 0)),
    ],
)
def test_text_is_decoded_or_its_first_bad_byte_is_named(data: bytes, text: str | TextFault):
    assert decoded_text(data) == text


def test_a_mark_in_the_middle_of_a_file_is_a_character():
    assert decoded_text(b"\xef\xbb\xbfa", skip_mark=False) == "\ufeffa"
