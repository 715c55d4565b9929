"""Which modules of a checkpoint could be its LM head or its token embedding, and which of these is meant.

    names ─▶ modules that go by the name of a head or embedding, outside numbered layers
          ─▶ those whose rows fit the tokens ─▶ those of the text part ─▶ one, or an error that lists them

Names, dtypes and shapes decide; no row is read. A module that is not a plain matrix of floats stays a candidate: what
it would have given must not be replaced by something else in silence.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from costbank.checkpoints.names import (
    EMBEDDINGS,
    HEADS,
    SIDE_PARTS,
    WEAK_HEADS,
    clean,
    ends_in,
    in_numbered_layer,
    scheme,
)

__all__ = [
    "Candidate",
    "Described",
    "described_as",
    "embedding_candidates",
    "head_candidates",
    "holds_no_rows",
    "meant",
    "unknown_heads",
]

Described = tuple[str, tuple[int, ...]] | None
"""An element type and a shape; None where the file that should hold the tensor is not there."""

_PADDING_ROWS = 128
_NO_HEAD_WORDS = ("emb", "wte", "wpe", "shared", "position", "pooler", *SIDE_PARTS)
_HEAD_WORDS = ("unemb", "out_emb", "output_emb", "_head", "head.")
_NOT_ROWS = ("INT", "UINT", "QINT", "QUINT", "BOOL", "COMPLEX", "F4", "F6_", "F8_E8M0")


@dataclass(frozen=True)
class Candidate:
    """A module that could be a head or an embedding.

    Attributes:
        path: its name, in parts.
        weight: the full name of its weight; of its first parameter where it has no plain weight.
        shape: of the weight; empty where it is not known, or there is no plain weight.
        trouble: why the weight alone is not the module's rows; empty where it is.
        exact: whether it is known by its whole name.
        weak: whether modules of this name are often something else.
    """

    path: tuple[str, ...]
    weight: str
    shape: tuple[int, ...]
    trouble: str = ""
    exact: bool = False
    weak: bool = False

    @property
    def rows(self) -> int | None:
        return self.shape[0] if self.shape else None

    @property
    def side_part(self) -> str:
        """The part of a model of several to which it belongs, where that is not the text's."""
        words = (word for part in self.path for word in SIDE_PARTS if word in part.lower())
        return next(words, "")

    def __str__(self) -> str:
        return f"{self.weight} ({self.trouble or (f'{self.rows:,} rows' if self.shape else 'in a missing file')})"


@dataclass
class _Module:
    known: str
    parameters: dict[tuple[str, ...], str] = field(default_factory=dict)


def head_candidates(
    names: Iterable[str],
    describe: Callable[[str], Described],
    tokens: int | None,
    embeddings: Sequence[Candidate],
    gguf: bool = False,
) -> list[Candidate]:
    """The modules that could be the head; those of common names only where their rows fit tokens or an embedding."""
    found = []
    embedded = {embedding.rows for embedding in embeddings if embedding.shape}
    for path, module in _modules(names, (*HEADS, *WEAK_HEADS)).items():
        candidate = _candidate(path, module, describe, module.known in WEAK_HEADS)
        if candidate is None:
            continue
        whole_name = path == ("output",) and not candidate.trouble
        if candidate.weak and not candidate.trouble and not (gguf and whole_name):
            fits = candidate.rows in embedded or fits_tokens(candidate.rows, tokens)
            if candidate.shape and not fits and not (whole_name and not embedded):
                continue
        if candidate.weak and candidate.trouble and candidate.side_part:
            continue
        found.append(candidate)
    return found


def embedding_candidates(names: Iterable[str], describe: Callable[[str], Described]) -> list[Candidate]:
    """The modules that could be the token embedding."""
    found = (_candidate(path, module, describe, False) for path, module in _modules(names, EMBEDDINGS).items())
    return [candidate for candidate in found if candidate is not None]


def unknown_heads(
    names: Iterable[str],
    describe: Callable[[str], Described],
    tokens: int | None,
    embedding: Candidate,
    others: Sequence[Candidate],
) -> list[str]:
    """Matrices of unknown names outside numbered layers that could be the head.

    They are as large as the embedding, or have a row for each token.
    """
    known = {candidate.weight for candidate in (embedding, *others)}
    return [
        name
        for name in names
        if name not in known
        and embedding.shape
        and (not in_numbered_layer(clean(name)) or any(part.startswith("lm_head") for part in clean(name)))
        and (_names_head(name) or not any(word in name.lower() for word in _NO_HEAD_WORDS))
        and _could_be_rows(described_as(describe, name), embedding, tokens)
    ]


def _names_head(name: str) -> bool:
    return any(word in name.lower() for word in _HEAD_WORDS)


def _could_be_rows(found: Described, embedding: Candidate, tokens: int | None) -> bool:
    return found is not None and (found[1] == embedding.shape or fits_tokens(found[1][0], tokens))


def meant(
    candidates: Sequence[Candidate], tokens: int | None, known: Sequence[str], tied: bool = False
) -> list[Candidate]:
    """The candidates that remain when rows, parts and names have spoken; more than one where they cannot decide.

    Args:
        candidates: of the head, or of the embedding.
        tokens: how many tokens the tokenizer has; None where it is not known.
        known: the names that candidates are known by, the likelier before.
        tied: whether the embedding stands for a head, which the decoder has.
    """
    left = list(candidates)
    for keep in (
        lambda one: one.trouble or one.rows is None or tokens is None or one.rows >= tokens,
        lambda one: not one.side_part,
        lambda one: one.trouble or one.rows is None or fits_tokens(one.rows, tokens),
        lambda one: not one.weak,
        lambda one: not tied or not any(part in ("encoder", "text_encoder") for part in one.path),
        lambda one: one.exact,
    ):
        left = [one for one in left if keep(one)] or left
    exact = [one for one in left if one.exact]
    if len(exact) > 1 and not any(one.trouble for one in left):
        order = {name: place for place, name in enumerate(known)}
        left = [min(exact, key=lambda one: order[".".join(one.path)])]
    return left


def fits_tokens(rows: int | None, tokens: int | None) -> bool:
    """Whether a tensor has a row for each token and no more than padding besides."""
    return rows is not None and tokens is not None and tokens <= rows <= tokens + max(_PADDING_ROWS, tokens // 8)


def described_as(describe: Callable[[str], Described], name: str) -> Described:
    """A tensor's type and shape where it is a matrix; None where it is something else or not there."""
    found = describe(name)
    return found if found is not None and len(found[1]) == 2 and prod(found[1]) else None


def _modules(names: Iterable[str], known: Sequence[str]) -> dict[tuple[str, ...], _Module]:
    """The parameters of every module of a known name, under the longest path that is known."""
    modules: dict[tuple[str, ...], _Module] = {}
    for name in names:
        parts = clean(name)
        for end in range(len(parts) - 1, 0, -1):
            path = tuple(parts[:end])
            if in_numbered_layer(path):
                continue
            if match := next((one for one in known if ends_in(path, one)), ""):
                modules.setdefault(path, _Module(match)).parameters[tuple(parts[end:])] = name
                break
    return modules


def _candidate(
    path: tuple[str, ...], module: _Module, describe: Callable[[str], Described], weak: bool
) -> Candidate | None:
    exact = ".".join(path) in (*HEADS, *EMBEDDINGS)
    weight = module.parameters.get(("weight",))
    made_by = [(scheme(rest), name) for rest, name in module.parameters.items() if rest not in (("weight",), ("bias",))]
    adapters = [name for kind, name in made_by if kind == "an adapter"]
    if adapters:
        return Candidate(path, adapters[0], (), "part of an adapter", exact, weak)
    if weight is None:
        marked = next(((kind, name) for kind, name in made_by if kind), None)
        if marked is None:
            marked = _unknown_parameter(module, describe)
        if marked is None:
            return None
        kind, name = marked
        return Candidate(path, name, (), f"not a plain weight but {kind}", exact, weak)
    facts = describe(weight)
    if facts is None:
        return Candidate(path, weight, (), "", exact, weak)
    dtype, shape = facts
    kind = next((kind for kind, _ in made_by if kind), "")
    if holds_no_rows(dtype) and (kind or not weak):
        return Candidate(path, weight, (), f"stored as {dtype}{f' by {kind}' if kind else ''}", exact, weak)
    if len(shape) != 2 or not prod(shape):
        return None if weak else Candidate(path, weight, (), "", exact, weak)
    if trouble := _scales(module.parameters, describe, shape[0], dtype):
        return Candidate(path, weight, (), trouble, exact, weak)
    return Candidate(path, weight, shape, "", exact, weak)


def holds_no_rows(dtype: str) -> bool:
    """Whether a type of safetensors or PyTorch is not floating point, or holds less than a value in a byte."""
    return dtype.startswith(_NOT_ROWS) or (dtype[:1] in "IU" and dtype[1:].isdecimal())


def _unknown_parameter(module: _Module, describe: Callable[[str], Described]) -> tuple[str, str] | None:
    """A parameter of the module itself that is a matrix, which a plain head does not have without a weight."""
    if module.known not in HEADS:
        return None
    for rest, name in module.parameters.items():
        if len(rest) == 1 and rest != ("bias",) and described_as(describe, name):
            return f"{rest[0]}, which is not known", name
    return None


def _scales(
    parameters: Mapping[tuple[str, ...], str], describe: Callable[[str], Described], rows: int, dtype: str
) -> str:
    """A scale for the tensor or for each row changes no cosine; one for each block, or for each column, does."""
    for rest, name in parameters.items():
        if len(rest) == 1 and rest[0] in ("weight_scale_inv", "weight_scale", "weight_scales", "scales", "scale"):
            facts = describe(name)
            if facts is not None and prod(facts[1]) not in (1, rows):
                return f"scaled in blocks by {name!r}"
        elif scheme(rest) and scheme(rest) != "FP8 with scales" and dtype.startswith("F8"):
            return f"stored as {dtype} by {scheme(rest)}"
    return ""
