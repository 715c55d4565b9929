"""A config that does not fit, as an error that names each setting and what to give instead."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from costbank.config.identity import settings
from costbank.config.words import choices, one_of, shown, takes
from costbank.errors import UsageError
from costbank.sources.registry import SOURCE_SECTIONS, foreign_sections, source_called
from costbank.suggestions import closest, plain

__all__ = ["foreign_setting", "like_settings", "misplaced", "settings_called", "unusable_config"]

_MOST_SUGGESTED = 4

_MEANINGS = {
    "size": "dim", "vector_size": "dim", "dimension": "dim", "dimensions": "dim", "embedding_dim": "dim",
    "iter": "epochs", "iterations": "epochs", "passes": "epochs", "threads": "workers", "num_workers": "workers",
    "ns": "negative", "negatives": "negative", "top_k": "k", "jobs": "processes", "n_jobs": "processes",
}  # fmt: skip
"""Names that other tools have for some of ours."""

_LIKELIEST = {
    "corpus": "corpus.files",
    "engine": "engine.kind",
    "vectors": "vectors.path",
    "neighbors": "neighbors.k",
}
"""Which setting is meant where a section is given a value."""

_SOURCES = {
    "w2v": "word2vec", "skipgram": "word2vec", "cbow": "word2vec", "ppmi": "cooccurrence", "svd": "cooccurrence",
    "counts": "cooccurrence", "head": "lm-head", "model": "lm-head", "gguf": "lm-head", "vocab": "spelling",
    "tokenizer": "spelling", "letters": "spelling", "glove": "vectors", "fasttext": "vectors", "npy": "vectors",
    "donor": "transfer",
}  # fmt: skip


def unusable_config(error: ValidationError, values: Mapping[str, Any]) -> UsageError:
    """What pydantic found wrong with a config, in words that name each setting."""
    source = source_called(values.get("source"))
    source = source if isinstance(source, str) and source in SOURCE_SECTIONS else None
    messages, hints = [], []
    for problem in error.errors():
        path = ".".join(part for part in problem["loc"] if isinstance(part, str))
        message, hint = _explained(path, problem, source)
        messages.append(message)
        hints.append(hint)
    return UsageError("; ".join(dict.fromkeys(messages)), "; ".join(dict.fromkeys(hints)))


def foreign_setting(path: str, sources: list[str], source: str) -> UsageError:
    """The error for a setting of other sources."""
    return UsageError(
        f"{path} is a setting of the source {' and '.join(sources)}, not of {source}",
        "leave it out, or give the source that has it",
    )


def misplaced(path: str, section: str) -> UsageError:
    """The error for a path that leads through a setting."""
    return UsageError(f"{path}: {section} is a setting, not a section", _about(section) or _asked(path, None))


def like_settings(path: str, source: str | None = None) -> list[str]:
    """Settings that a person may have meant by a path that is none, the likeliest first.

    The setting itself counts more than its section, so that `window` finds `cooccurrence.window` where that is the
    source, and `cooccurrence.epochs` finds `word2vec.epochs`.
    """
    last = path.rpartition(".")[2]
    if not last:
        return []
    if called := settings_called(path, source):
        return called
    for group in _groups(path, source):
        by_name: dict[str, list[str]] = {}
        for name in group:
            by_name.setdefault(_last(name), []).append(name)
        if near := closest(last, by_name):
            return by_name[near][:_MOST_SUGGESTED]
    near = closest(path, settings())
    return [near] if near else []


def settings_called(path: str, source: str | None = None) -> list[str]:
    """Settings of that very name but for its section and spelling, or of the name that another tool has for them."""
    if same := [name for name in settings() if plain(name) == plain(path)]:
        return same
    last = path.rpartition(".")[2]
    wanted = {plain(last), plain(_MEANINGS.get(last.lower(), last))}
    named = ([name for name in group if plain(_last(name)) in wanted] for group in _groups(path, source))
    return next(filter(None, named), [])[:_MOST_SUGGESTED]


def _groups(path: str, source: str | None) -> list[list[str]]:
    """All settings, in groups of which an earlier one is likelier: of the same section, of the source, any."""
    known, section = list(settings()), path.rpartition(".")[0]
    foreign = foreign_sections(source) if source else set()
    within = [name for name in known if section and plain(_section(name)) == plain(section)]
    own = [name for name in known if _section(name) not in foreign]
    return [within, own] if source else [within, own, known]


def _explained(path: str, problem: Any, source: str | None) -> tuple[str, str]:
    """What is wrong with a setting, and what to do."""
    kind, value = problem["type"], problem.get("input")
    field = settings().get(path)
    if kind == "missing":
        return f"the setting {path} is needed", f"give --{path}"
    if kind == "extra_forbidden":
        while isinstance(value, dict) and value:  # a section that does not exist
            name, value = next(iter(value.items()))
            path = f"{path}.{name}"
        return f"there is no setting {path}", _asked(path, source)
    if field is None:
        inside = [name for name in settings() if name.startswith(f"{path}.")]
        likeliest = f"did you mean {_LIKELIEST[path]}? " if path in _LIKELIEST else ""
        return (
            f"{path} is a section of settings, and takes no value such as {shown(value)}",
            f"{likeliest}the section has {', '.join(inside)}",
        )
    if isinstance(value, dict):
        return f"{path} is a setting, not a section", _about(path)
    if kind == "value_error":  # raised by ourselves
        return f"{path}: {problem['ctx']['error']}", _about(path)
    message = f"{path} is {shown(value)}, and it takes {takes(field)}"
    near = closest(str(value), choices(field), _SOURCES if path == "source" else None)
    return message, f"did you mean {near}?" if near else _about(path)


def _asked(path: str, source: str | None) -> str:
    near = like_settings(path, source)
    if len(near) == 1:
        return f"did you mean {near[0]}: {settings()[near[0]].description}?"
    if near:
        return f"did you mean {one_of(near)}?"
    return f"`costbank settings{f' {source}' if source else ''}` lists the settings"


def _about(path: str) -> str:
    field = settings().get(path)
    return f"{path}: {field.description}" if field else ""


def _section(path: str) -> str:
    return path.rpartition(".")[0]


def _last(path: str) -> str:
    return path.rpartition(".")[2]
