"""Errors for invalid configs, which name each setting and suggest what to give instead."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from costbank.config.descriptions import accepted_values, choices, join_or, value_text
from costbank.config.identity import settings
from costbank.errors import UsageError
from costbank.sources.registry import SOURCE_SECTIONS, canonical_source, foreign_sections
from costbank.suggestions import closest, plain

__all__ = ["foreign_setting", "invalid_config", "like_settings", "not_a_section", "settings_called"]

_MOST_SUGGESTED = 4

_SYNONYMS = {
    "size": "dim", "vector_size": "dim", "dimension": "dim", "dimensions": "dim", "embedding_dim": "dim",
    "iter": "epochs", "iterations": "epochs", "passes": "epochs", "threads": "workers", "num_workers": "workers",
    "ns": "negative", "negatives": "negative", "top_k": "k", "jobs": "processes", "n_jobs": "processes",
}  # fmt: skip
"""Names of settings in other tools, and our names for them."""

_MAIN_SETTINGS = {
    "corpus": "corpus.files",
    "engine": "engine.kind",
    "vectors": "vectors.path",
    "neighbors": "neighbors.k",
}
"""The setting that is most likely meant if a section is given a value."""

_SOURCE_SYNONYMS = {
    "w2v": "word2vec", "skipgram": "word2vec", "cbow": "word2vec", "ppmi": "cooccurrence", "svd": "cooccurrence",
    "counts": "cooccurrence", "head": "lm-head", "model": "lm-head", "gguf": "lm-head", "vocab": "spelling",
    "tokenizer": "spelling", "letters": "spelling", "glove": "vectors", "fasttext": "vectors", "npy": "vectors",
    "donor": "transfer",
}  # fmt: skip


def invalid_config(error: ValidationError, values: Mapping[str, Any]) -> UsageError:
    """One error for all problems that pydantic reports. It names each setting."""
    source = canonical_source(values.get("source"))
    source = source if isinstance(source, str) and source in SOURCE_SECTIONS else None
    messages, hints = [], []
    for problem in error.errors():
        path = ".".join(part for part in problem["loc"] if isinstance(part, str))
        message, hint = _explain(path, problem, source)
        messages.append(message)
        hints.append(hint)
    return UsageError("; ".join(dict.fromkeys(messages)), "; ".join(dict.fromkeys(hints)))


def foreign_setting(path: str, sources: list[str], source: str) -> UsageError:
    """The error for a setting of other sources."""
    return UsageError(
        f"{path} is a setting of the source{'s' * (len(sources) > 1)} {' and '.join(sources)}, not of {source}",
        "omit it, or give the source that has it",
    )


def not_a_section(path: str, section: str) -> UsageError:
    """The error for a path that has a setting where a section should be."""
    return UsageError(f"{path}: {section} is a setting, not a section", _describe(section) or _suggest(path, None))


def like_settings(path: str, source: str | None = None) -> list[str]:
    """Paths of settings that a person may have meant by an unknown path, the likeliest first.

    The name of the setting counts more than its section: `window` finds `cooccurrence.window` for that source, and
    `cooccurrence.epochs` finds `word2vec.epochs`.
    """
    name = _name(path)
    if not name:
        return []
    if same_name := settings_called(path, source):
        return same_name
    for group in _groups(path, source):
        by_name: dict[str, list[str]] = {}
        for candidate in group:
            by_name.setdefault(_name(candidate), []).append(candidate)
        if similar := closest(name, by_name):
            return by_name[similar][:_MOST_SUGGESTED]
    similar = closest(path, settings())
    return [similar] if similar else []


def settings_called(path: str, source: str | None = None) -> list[str]:
    """Paths of settings with the same name, in any section and spelling, or with that name in another tool."""
    if same_path := [candidate for candidate in settings() if plain(candidate) == plain(path)]:
        return same_path
    name = _name(path)
    names = {plain(name), plain(_SYNONYMS.get(name.lower(), name))}
    for group in _groups(path, source):
        if same_name := [candidate for candidate in group if plain(_name(candidate)) in names]:
            return same_name[:_MOST_SUGGESTED]
    return []


def _groups(path: str, source: str | None) -> list[list[str]]:
    """Paths of settings in two groups, the likelier first: of the same section; of the source, or all if it is None."""
    paths, section = list(settings()), _section(path)
    foreign = foreign_sections(source) if source else set()
    of_section = [candidate for candidate in paths if section and plain(_section(candidate)) == plain(section)]
    of_source = [candidate for candidate in paths if _section(candidate) not in foreign]
    return [of_section, of_source]


def _explain(path: str, problem: Any, source: str | None) -> tuple[str, str]:
    """The message and the hint for one problem that pydantic reports."""
    kind, value = problem["type"], problem.get("input")
    field = settings().get(path)
    if kind == "missing":
        return f"the setting {path} is needed", f"give {path}, or --{path} on the command line"
    if kind == "extra_forbidden":
        while isinstance(value, dict) and value:  # the section does not exist
            name, value = next(iter(value.items()))
            path = f"{path}.{name}"
        return f"there is no setting {path}", _suggest(path, source)
    if field is None:
        members = [candidate for candidate in settings() if candidate.startswith(f"{path}.")]
        suggestion = f"did you mean {_MAIN_SETTINGS[path]}? " if path in _MAIN_SETTINGS else ""
        return (
            f"{path} is a section of settings and cannot have a value, but {value_text(value)} was given",
            f"{suggestion}the section has {', '.join(members)}",
        )
    if isinstance(value, dict):
        return f"{path} is a setting, not a section", _describe(path)
    if kind == "value_error":  # raised by our own validators
        return f"{path}: {problem['ctx']['error']}", _describe(path)
    message = f"{path} is {value_text(value)}, but must be {accepted_values(field)}"
    suggestion = closest(str(value), choices(field), _SOURCE_SYNONYMS if path == "source" else None)
    return message, f"did you mean {suggestion}?" if suggestion else _describe(path)


def _suggest(path: str, source: str | None) -> str:
    """A hint for an unknown path."""
    similar = like_settings(path, source)
    if len(similar) == 1:
        return f"did you mean {similar[0]}: {settings()[similar[0]].description}?"
    if similar:
        return f"did you mean {join_or(similar)}?"
    return f"`costbank settings{f' {source}' if source else ''}` lists the settings"


def _describe(path: str) -> str:
    field = settings().get(path)
    return f"{path}: {field.description}" if field else ""


def _section(path: str) -> str:
    return path.rpartition(".")[0]


def _name(path: str) -> str:
    return path.rpartition(".")[2]
