"""Read judgments of word pairs, analogies and groups of synonyms: those in gensim, and a user's own files."""

import math
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from costbank.encodings import TextFault, decoded_text, encoding_fault
from costbank.errors import InputError, MissingExtraError
from costbank.files import check_readable
from costbank.token_names import printable

__all__ = ["Judgment", "Question", "english_judgments", "english_questions", "read_groups", "read_judgments"]

Judgment = tuple[str, str, float]
Question = tuple[str, str, str, str]

_ENGLISH = {"WordSim-353": "wordsim353.tsv", "SimLex-999": "simlex999.txt"}
_QUESTIONS = "questions-words.txt"
_JUDGMENT_HINT = "write two words and a number on each line, separated by tabs: car<TAB>automobile<TAB>8.9"
_GROUP_HINT = "write the words of a group on one line, separated by tabs: car<TAB>automobile<TAB>auto"
_MOST_QUOTED = 60


def english_judgments() -> dict[str, list[Judgment]]:
    """WordSim-353 (Finkelstein et al. 2002) and SimLex-999 (Hill et al. 2015), as gensim contains them.

    Raises:
        MissingExtraError: gensim is not installed.
    """
    return {name: read_judgments(_gensim_file(file)) for name, file in _ENGLISH.items()}


def english_questions() -> list[Question]:
    """The analogies of Mikolov et al. (2013), as gensim contains them.

    Raises:
        MissingExtraError: gensim is not installed.
    """
    rows = [text.split() for _, text in _lines(_gensim_file(_QUESTIONS)) if not text.startswith(":")]
    return [(a, b, c, d) for a, b, c, d in rows]


def read_judgments(path: Path) -> list[Judgment]:
    """Two words and their similarity, on any scale, per line. Blank lines and lines that begin with # are ignored.

    Raises:
        InputNotFoundError, InputError: the file cannot be read, or a line is not two words and a number.
    """
    return [_judgment(path, number, text) for number, text in _lines(path)]


def read_groups(path: Path) -> list[list[str]]:
    """Words of similar meaning per line, at least two. Blank lines and lines that begin with # are ignored.

    Raises:
        InputNotFoundError, InputError: the file cannot be read, or a line has fewer than two different words.
    """
    groups = []
    for number, text in _lines(path):
        words = [word.strip() for word in text.split("\t")]
        if not all(words) or len(set(words)) < 2:
            raise _bad_line(path, number, text, "two or more different words", _GROUP_HINT)
        groups.append(list(dict.fromkeys(words)))
    return groups


def _judgment(path: Path, number: int, text: str) -> Judgment:
    columns = [column.strip() for column in text.split("\t")]
    try:
        first, second, score = columns
        if first and second and math.isfinite(float(score)):
            return first, second, float(score)
    except ValueError:
        pass
    raise _bad_line(path, number, text, "two words and a number", _JUDGMENT_HINT)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 text file with their numbers, without blank lines and comments."""
    check_readable(path, "file")
    data = path.read_bytes()
    text = decoded_text(data)
    if isinstance(text, TextFault):
        reason, hint = encoding_fault(data, text.reason, lambda encoding: encoding.conversion(str(path)))
        raise InputError(f"{path} {reason} at byte {text.byte:,}", hint)
    lines = [(number, line.rstrip("\r")) for number, line in enumerate(text.split("\n"), 1)]
    content = [(number, line) for number, line in lines if line.strip() and not line.startswith("#")]
    if not content:
        raise InputError(f"{path} has only blank lines and comments", "give a file with content")
    yield from content


def _bad_line(path: Path, number: int, text: str, expected: str, hint: str) -> InputError:
    quoted = printable(text[:_MOST_QUOTED].encode()) + ("…" if len(text) > _MOST_QUOTED else "")
    return InputError(f"{path} line {number} is not {expected} separated by tabs: '{quoted}'", hint)


def _gensim_file(name: str) -> Path:
    """A file of gensim's test data; gensim is not imported, which would take seconds."""
    spec = find_spec("gensim")
    if spec is None or spec.origin is None:
        raise MissingExtraError(
            "the English word pairs and analogies are part of the Python library 'gensim', which is not installed",
            "pip install 'costbank[build]', or give your own word pairs with --words",
        )
    return Path(spec.origin).parent / "test" / "test_data" / name
