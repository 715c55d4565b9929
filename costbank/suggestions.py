"""What a person most likely meant by a name that does not exist."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

__all__ = ["closest", "plain"]

_LEAST_LIKENESS = 0.6
_LEAST_PREFIX = 3


def closest(given: str, known: Iterable[str], meanings: Mapping[str, str] | None = None) -> str | None:
    """The known name that is most like the one given, or None where none is.

    Case, hyphens, underscores, dots and spaces do not count. The same name otherwise comes first, then what another
    word means, then the only name that begins so, then the name with the fewest differences.

    Args:
        given: what was typed.
        known: the names that exist.
        meanings: other words for some of them.
    """
    names = {plain(name): name for name in known}
    typed = plain(given)
    if typed in names:
        return names[typed]
    meant = {plain(word): name for word, name in (meanings or {}).items()}.get(typed)
    if meant is not None:
        return meant
    longer = [name for form, name in names.items() if form.startswith(typed)]
    if len(longer) == 1 and len(typed) >= _LEAST_PREFIX:
        return longer[0]
    near = get_close_matches(typed, names, 1, _LEAST_LIKENESS)
    return names[near[0]] if near else None


def plain(name: str) -> str:
    """A name without what people write differently."""
    return "".join(letter for letter in name.casefold() if letter not in "-_. ")
