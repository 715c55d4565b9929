"""Refuse unsupported vector files of other tools and text that is not vectors, with a hint on how to convert them."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from costbank.encodings import certain_encoding
from costbank.errors import InputError
from costbank.signatures import SIGNATURE_BYTES, signature_of

__all__ = ["explain_text", "refuse_foreign_vectors", "refuse_other_rows"]

_SSTABLE_END = bytes.fromhex("57fb808b247547db")
_TENSORFLOW_NAME = re.compile(r"\.ckpt(\.|-\d|$)|\.data-\d{5}-of-\d{5}$")
_TENSORFLOW_HINT = "save the variable as an array with numpy.save, and name the words of its rows"
_TO_TEXT = "convert it with gensim: KeyedVectors.load({path!r}).save_word2vec_format('vectors.txt')"
_SAVE = "save the vectors with numpy.save, and name the words of the rows with --set vectors.vocabulary=FILE"
_HINTS = {
    "lfs": "fetch the file itself: git lfs pull",
    "annex": "fetch the file itself: git annex get",
    "html": "download the file again; this is a web page from the server",
    "xml-error": "download the file again; this is an error message from the server",
    "gensim": f"{_TO_TEXT}; in a full model, the vectors are the attribute .wv",
    "pickle": _SAVE,
    "fasttext": "use the .vec file that comes with it, or write one: gensim.models.fasttext.load_facebook_vectors("
    "{path!r}).save_word2vec_format('vectors.txt')",
    "torch": "if its rows are token ids, use costbank build --source lm-head --model FILE --tensor NAME; "
    f"otherwise, {_SAVE}",
    "gguf": "use costbank build --source lm-head --model FILE",
    "sparse": "convert the vectors to dense ones, such as with TruncatedSVD of scikit-learn, and save them with "
    "numpy.save",
    "npz": "save only the array of vectors with numpy.save",
    "npy": "rename it with the suffix .npy",
    "safetensors": "rename it with the suffix .safetensors",
    "zst": "decompress it: zstd -d",
    "zip": "unpack it: unzip",
    "bz2": "unpack it: bunzip2",
    "xz": "unpack it: xz -d",
    "7z": "unpack it: 7z x",
    "tar": "unpack it: tar -xf",
    "gz": "it is compressed twice; decompress it once: gzip -dc",
    "tensorflow": _TENSORFLOW_HINT,
}
_SPARSE_FIELD = re.compile(rb"\d+:[-+]?[\d.]+(e[-+]?\d+)?", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(rb"-?\d+,\d+")
_OTHER_SEPARATORS = ((b",", "commas", ","), (b";", "semicolons", ";"))


def refuse_foreign_vectors(path: Path, head: bytes, expected: Sequence[str] = ()) -> None:
    """Refuse a file if its first bytes, last bytes or name show that its format is unsupported.

    Args:
        path: the file.
        head: the first bytes of its decompressed content.
        expected: the kinds of signatures that are allowed.

    Raises:
        InputError: the format is unsupported, or the file is text in an encoding other than UTF-8.
    """
    signature = signature_of(head[:SIGNATURE_BYTES])
    if signature and signature.kind not in expected:
        hint = _HINTS.get(signature.kind, _SAVE).format(path=str(path))
        raise InputError(f"{path} is {signature.name}, not a supported file of vectors", hint)
    if _TENSORFLOW_NAME.search(path.name) or (not expected and _ends_as_sstable(path)):
        raise InputError(f"{path} is part of a TensorFlow checkpoint", _TENSORFLOW_HINT)
    if not expected and (encoding := certain_encoding(head[:SIGNATURE_BYTES])):
        raise InputError(
            f"{path} is {encoding.name} text, but vector files must be UTF-8",
            f"convert it: {encoding.conversion(str(path))}",
        )


def refuse_other_rows(path: Path, lines: Sequence[bytes]) -> None:
    """Refuse sparse vectors (`index:value` pairs, as in SVMlight) and floret's hashed rows, which have no words.

    Raises:
        InputError: most lines are sparse vectors, or the first line is a floret header.
    """
    if _is_floret(lines):
        raise InputError(f"{path} holds floret's hashed vectors, whose rows are not words", _SAVE)
    sparse = sum(_is_sparse(line) for line in lines)
    if sparse and 2 * sparse >= len(lines):
        raise InputError(f"{path} holds sparse vectors in the form index:value", _HINTS["sparse"])


def explain_text(path: Path, lines: Sequence[bytes]) -> InputError:
    """An error that explains why the first lines of a file are not words with vectors."""
    start = lines[0].lstrip()[:1] if lines else b""
    second = lines[min(1, len(lines) - 1)] if lines else b""
    if start in (b"{", b"["):
        return InputError(f"{path} is JSON, not a supported file of vectors", _SAVE)
    for separator, name, shown in _OTHER_SEPARATORS:
        fields = second.strip().split(separator)
        if len(fields) > 2 and all(_is_number(field) for field in fields[1:]):
            return InputError(
                f"{path} separates numbers with {name} instead of spaces",
                f"convert it: sed 's/{shown}/ /g' {shlex.quote(str(path))}; also remove quotes around words and a line "
                "of column names",
            )
    fields = second.split()
    if len(fields) > 2 and all(_DECIMAL_COMMA.fullmatch(field) for field in fields[1:]):
        return InputError(
            f"{path} has decimal commas instead of decimal points",
            f"convert it: sed 's/,/./g' {shlex.quote(str(path))}",
        )
    if any(b"[" in field or b"]" in field for field in fields[1:]):
        return InputError(f"{path} has vectors in brackets", f"remove them: sed 's/[][,]/ /g' {shlex.quote(str(path))}")
    return InputError(
        f"{path} is not a file in word2vec's text format, word2vec's binary format or GloVe's text format",
        "such a file starts with the numbers of words and dimensions, or with a word and its vector",
    )


def _ends_as_sstable(path: Path) -> bool:
    """Whether a file ends like the index of a TensorFlow checkpoint, which is a LevelDB table."""
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - len(_SSTABLE_END)))
        return file.read() == _SSTABLE_END


def _is_sparse(line: bytes) -> bool:
    fields = line.partition(b"#")[0].split()[1:]
    pairs = [field for field in fields if not field.startswith(b"qid:")]
    return bool(pairs) and all(_SPARSE_FIELD.fullmatch(field) for field in pairs)


def _is_floret(lines: Sequence[bytes]) -> bool:
    """Whether the first line is a floret header: rows, dimensions, n-gram sizes, hashes, a seed, two boundary marks."""
    fields = lines[0].split() if lines else []
    return len(fields) == 8 and all(field.isdigit() for field in fields[:6]) and not _is_number(fields[7])


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
