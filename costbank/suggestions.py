"""The existing name that a person most likely meant by an unknown one."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

__all__ = ["closest", "plain"]

_LEAST_SIMILARITY = 0.6
_LEAST_PREFIX = 3


def closest(typed: str, names: Iterable[str], synonyms: Mapping[str, str] | None = None) -> str | None:
    """The name that a person most likely meant; None if no name is similar.

    Names are compared without case, hyphens, underscores, dots and spaces. The first of these that exists is returned:
    an equal name, the name that `typed` is a synonym of, the only name that begins with `typed`, the most similar name.

    Args:
        typed: the unknown name.
        names: the existing names.
        synonyms: other words for some of these names.
    """
    by_plain_name = {plain(name): name for name in names}
    typed = plain(typed)
    if typed in by_plain_name:
        return by_plain_name[typed]
    synonym_of = {plain(word): name for word, name in (synonyms or {}).items()}
    if typed in synonym_of:
        return synonym_of[typed]
    longer = [name for plain_name, name in by_plain_name.items() if plain_name.startswith(typed)]
    if len(longer) == 1 and len(typed) >= _LEAST_PREFIX:
        return longer[0]
    similar = get_close_matches(typed, by_plain_name, 1, _LEAST_SIMILARITY)
    return by_plain_name[similar[0]] if similar else None


def plain(name: str) -> str:
    """A name in lower case, without hyphens, underscores, dots and spaces."""
    return "".join(letter for letter in name.casefold() if letter not in "-_. ")
