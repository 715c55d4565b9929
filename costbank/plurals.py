"""Counts in sentences: one token, two tokens."""

__all__ = ["counted"]


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number and the noun in singular or plural, such as `1 token` and `1,024 tokens`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
