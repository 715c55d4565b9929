"""Vector files of other tools, and text that looks like vectors and is not: refused by name, with a way to convert."""

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
_TO_TEXT = "KeyedVectors.load({path!r}).save_word2vec_format('vectors.txt') in gensim writes a form that is read"
_SAVE = "save the vectors with numpy.save, and name the words of the rows with --set vectors.vocabulary=FILE"
_HINTS = {
    "lfs": "fetch the file itself: git lfs pull",
    "annex": "fetch the file itself: git annex get",
    "html": "download the file again; this is a server's answer",
    "xml-error": "download the file again; the server's answer is in this one",
    "gensim": f"{_TO_TEXT}; a whole model has it as .wv",
    "pickle": _SAVE,
    "fasttext": "give the .vec file that comes with it, or write one: gensim.models.fasttext.load_facebook_vectors("
    "{path!r}).save_word2vec_format('vectors.txt')",
    "torch": "costbank build --source lm-head --model FILE --tensor NAME reads it, where its rows are token ids; "
    f"otherwise {_SAVE}",
    "gguf": "costbank build --source lm-head --model FILE reads it",
    "sparse": "sparse vectors are not read; reduce them to dense ones first, such as with sklearn's TruncatedSVD, and "
    "save these with numpy.save",
    "npz": "save the array of vectors by itself with numpy.save",
    "npy": "give it the suffix .npy",
    "safetensors": "give it the suffix .safetensors",
    "zst": "decompress it first: zstd -d",
    "zip": "unpack it first: unzip",
    "bz2": "unpack it first: bunzip2",
    "xz": "unpack it first: xz -d",
    "7z": "unpack it first: 7z x",
    "tar": "unpack it first: tar -xf",
    "gz": "it is compressed twice; decompress it once: gzip -dc",
    "tensorflow": _TENSORFLOW_HINT,
}
_SPARSE_FIELD = re.compile(rb"\d+:[-+]?[\d.]+(e[-+]?\d+)?", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(rb"-?\d+,\d+")
_OTHER_SEPARATORS = ((b",", "commas", ","), (b";", "semicolons", ";"))


def refuse_foreign_vectors(path: Path, head: bytes, expected: Sequence[str] = ()) -> None:
    """Refuse a file that its first bytes, its last ones or its name tell to be of a kind that is not read.

    Args:
        path: the file.
        head: the beginning of its content, decompressed.
        expected: kinds of signatures that the file may have.

    Raises:
        InputError: it is of such a kind, or text in another encoding.
    """
    signature = signature_of(head[:SIGNATURE_BYTES])
    if signature and signature.kind not in expected:
        hint = _HINTS.get(signature.kind, _SAVE).format(path=str(path))
        raise InputError(f"{path} is {signature.name}, and not a file of vectors that is read", hint)
    if _TENSORFLOW_NAME.search(path.name) or (not expected and _ends_as_sstable(path)):
        raise InputError(f"{path} is part of a TensorFlow checkpoint", _TENSORFLOW_HINT)
    if not expected and (encoding := certain_encoding(head[:SIGNATURE_BYTES])):
        raise InputError(f"{path} is {encoding.name} text, and only UTF-8 is read", encoding.conversion(str(path)))


def refuse_other_rows(path: Path, lines: Sequence[bytes]) -> None:
    """Refuse lines of `index:value` pairs, as of PPMI vectors and SVMlight, and floret's rows, which have no words.

    Raises:
        InputError: most lines are such.
    """
    if _is_floret(lines):
        raise InputError(f"{path} holds floret's hashed vectors, whose rows are not words", _SAVE)
    sparse = sum(_is_sparse(line) for line in lines)
    if sparse and 2 * sparse >= len(lines):
        raise InputError(f"{path} holds sparse vectors, written as index:value", _HINTS["sparse"])


def explain_text(path: Path, lines: Sequence[bytes]) -> InputError:
    """What is wrong with a file whose first lines are not words with vectors, as far as that can be told."""
    start = lines[0].lstrip()[:1] if lines else b""
    second = lines[min(1, len(lines) - 1)] if lines else b""
    if start in (b"{", b"["):
        return InputError(f"{path} is JSON, and not a file of vectors that is read", _SAVE)
    for separator, name, shown in _OTHER_SEPARATORS:
        fields = second.strip().split(separator)
        if len(fields) > 2 and all(_is_number(field) for field in fields[1:]):
            return InputError(
                f"{path} separates numbers with {name}, and not with spaces",
                f"sed 's/{shown}/ /g' {shlex.quote(str(path))} writes spaces; quoted words and a line of column names "
                "must go as well",
            )
    fields = second.split()
    if len(fields) > 2 and all(_DECIMAL_COMMA.fullmatch(field) for field in fields[1:]):
        return InputError(
            f"{path} writes decimals with commas", f"sed 's/,/./g' {shlex.quote(str(path))} writes points"
        )
    if any(b"[" in field or b"]" in field for field in fields[1:]):
        return InputError(
            f"{path} writes vectors in brackets", f"sed 's/[][,]/ /g' {shlex.quote(str(path))} takes them off"
        )
    return InputError(
        f"{path} is neither word2vec's text or binary form nor GloVe's text",
        "such a file begins with the numbers of words and dimensions, or with a word and its vector",
    )


def _ends_as_sstable(path: Path) -> bool:
    """Whether a file ends as the index of a TensorFlow checkpoint does, which is a table of LevelDB's."""
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - len(_SSTABLE_END)))
        return file.read() == _SSTABLE_END


def _is_sparse(line: bytes) -> bool:
    fields = line.partition(b"#")[0].split()[1:]
    pairs = [field for field in fields if not field.startswith(b"qid:")]
    return bool(pairs) and all(_SPARSE_FIELD.fullmatch(field) for field in pairs)


def _is_floret(lines: Sequence[bytes]) -> bool:
    """Whether the first line is a floret header: rows, dimensions, n-gram sizes, hashes, a seed and two marks."""
    fields = lines[0].split() if lines else []
    return len(fields) == 8 and all(field.isdigit() for field in fields[:6]) and not _is_number(fields[7])


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
