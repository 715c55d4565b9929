"""Which modules of a checkpoint could be its LM head or its token embedding, and which of them is the right one.

    tensor names ─▶ modules that have the name of a head or an embedding, outside numbered layers
                 ─▶ those with a row for each token ─▶ those of the text model ─▶ one, or several equally likely ones

Names, element types and shapes decide; no row is read. A module that is not a plain matrix of floats stays a candidate,
so an error can name it, and no other tensor silently replaces it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from costbank.checkpoints.base import TensorInfo
from costbank.checkpoints.names import (
    AMBIGUOUS_HEADS,
    AUXILIARY_PARTS,
    EMBEDDINGS,
    HEADS,
    ends_in,
    in_numbered_layer,
    name_parts,
    storage_scheme,
)

__all__ = ["Candidate", "embedding_candidates", "has_no_float_rows", "head_candidates", "narrow_down", "unnamed_heads"]

Describe = Callable[[str], TensorInfo | None]
"""The type of `Checkpoint.describe`."""

_MIN_PADDING_ROWS = 128
_NOT_HEAD_WORDS = ("emb", "wte", "wpe", "shared", "position", "pooler", *AUXILIARY_PARTS)
_HEAD_WORDS = ("unemb", "out_emb", "output_emb", "_head", "head.")
_NOT_FLOAT = ("INT", "UINT", "QINT", "QUINT", "BOOL", "COMPLEX", "F4", "F6_", "F8_E8M0")


@dataclass(frozen=True)
class Candidate:
    """A module that could be the head or the embedding.

    Attributes:
        path: the parts of its name.
        weight: the full name of its weight, or of its first parameter if it has no plain weight.
        shape: the shape of the weight; empty if it is not known, or there is no plain weight.
        problem: why the weight alone does not give the module's rows; empty if it does.
        exact: whether its full name is a known name, rather than only the end of it.
        ambiguous: whether modules with this name are often something else.
    """

    path: tuple[str, ...]
    weight: str
    shape: tuple[int, ...]
    problem: str = ""
    exact: bool = False
    ambiguous: bool = False

    @property
    def rows(self) -> int | None:
        return self.shape[0] if self.shape else None

    @property
    def auxiliary_part(self) -> str:
        """The auxiliary part that it belongs to, such as `vision`; empty if it belongs to the text model."""
        words = (word for part in self.path for word in AUXILIARY_PARTS if word in part.lower())
        return next(words, "")

    def __str__(self) -> str:
        return f"{self.weight} ({self.problem or (f'{self.rows:,} rows' if self.shape else 'in a missing file')})"


@dataclass
class _Module:
    """A module with a known name, and the full name of each of its parameters by the path below the module."""

    known_name: str
    parameters: dict[tuple[str, ...], str] = field(default_factory=dict)


def head_candidates(
    names: Iterable[str],
    describe: Describe,
    tokens: int | None,
    embeddings: Sequence[Candidate],
    is_gguf: bool = False,
) -> list[Candidate]:
    """The modules that could be the head.

    A module with an ambiguous name counts only if it has a row for each token or as many rows as an embedding.
    """
    candidates = []
    embedding_rows = {embedding.rows for embedding in embeddings if embedding.shape}
    for path, module in _modules(names, (*HEADS, *AMBIGUOUS_HEADS)).items():
        candidate = _candidate(path, module, describe, module.known_name in AMBIGUOUS_HEADS)
        if candidate is None:
            continue
        top_level_output = path == ("output",) and not candidate.problem
        if candidate.ambiguous and not candidate.problem and not (is_gguf and top_level_output):
            fits = candidate.rows in embedding_rows or _fits_tokens(candidate.rows, tokens)
            if candidate.shape and not fits and not (top_level_output and not embedding_rows):
                continue
        if candidate.ambiguous and candidate.problem and candidate.auxiliary_part:
            continue
        candidates.append(candidate)
    return candidates


def embedding_candidates(names: Iterable[str], describe: Describe) -> list[Candidate]:
    """The modules that could be the token embedding."""
    candidates = (_candidate(path, module, describe, False) for path, module in _modules(names, EMBEDDINGS).items())
    return [candidate for candidate in candidates if candidate is not None]


def unnamed_heads(
    names: Iterable[str],
    describe: Describe,
    tokens: int | None,
    embedding: Candidate,
    others: Sequence[Candidate],
) -> list[str]:
    """Matrices outside numbered layers that could be the head, but do not have a known name.

    They have the shape of the embedding, or a row for each token.
    """
    known = {candidate.weight for candidate in (embedding, *others)}
    return [
        name
        for name in names
        if name not in known
        and embedding.shape
        and (not in_numbered_layer(name_parts(name)) or any(part.startswith("lm_head") for part in name_parts(name)))
        and (_has_head_word(name) or not any(word in name.lower() for word in _NOT_HEAD_WORDS))
        and _could_be_head(_describe_matrix(describe, name), embedding, tokens)
    ]


def _has_head_word(name: str) -> bool:
    return any(word in name.lower() for word in _HEAD_WORDS)


def _could_be_head(matrix: TensorInfo | None, embedding: Candidate, tokens: int | None) -> bool:
    return matrix is not None and (matrix.shape == embedding.shape or _fits_tokens(matrix.shape[0], tokens))


def narrow_down(
    candidates: Sequence[Candidate], tokens: int | None, known_names: Sequence[str], tied: bool = False
) -> list[Candidate]:
    """Apply rules about rows, parts and names. Each rule drops candidates, unless it would drop all of them.

    Args:
        candidates: of the head, or of the embedding.
        tokens: how many tokens the tokenizer has; None if that is not known.
        known_names: the known names of such modules, the most likely ones first.
        tied: whether the candidates are embeddings that serve as the head. A head belongs to the decoder.

    Returns:
        The remaining candidates, several if the rules do not decide between them.
    """
    remaining = list(candidates)
    for keep in (
        lambda one: one.problem or one.rows is None or tokens is None or one.rows >= tokens,
        lambda one: not one.auxiliary_part,
        lambda one: one.problem or one.rows is None or _fits_tokens(one.rows, tokens),
        lambda one: not one.ambiguous,
        lambda one: not tied or not any(part in ("encoder", "text_encoder") for part in one.path),
        lambda one: one.exact,
    ):
        remaining = [one for one in remaining if keep(one)] or remaining
    exact = [one for one in remaining if one.exact]
    if len(exact) > 1 and not any(one.problem for one in remaining):
        order = {name: rank for rank, name in enumerate(known_names)}
        remaining = [min(exact, key=lambda one: order[".".join(one.path)])]
    return remaining


def has_no_float_rows(dtype: str) -> bool:
    """Whether an element type of safetensors or PyTorch is not floating point, or packs several values in a byte."""
    return dtype.startswith(_NOT_FLOAT) or (dtype[:1] in "IU" and dtype[1:].isdecimal())


def _fits_tokens(rows: int | None, tokens: int | None) -> bool:
    """Whether there is a row for each token, and the other rows are few enough to be padding."""
    return rows is not None and tokens is not None and tokens <= rows <= tokens + max(_MIN_PADDING_ROWS, tokens // 8)


def _describe_matrix(describe: Describe, name: str) -> TensorInfo | None:
    """The element type and the shape of a matrix; None if the tensor is not a matrix, or its file is missing."""
    info = describe(name)
    return info if info is not None and len(info.shape) == 2 and prod(info.shape) else None


def _modules(names: Iterable[str], known_names: Sequence[str]) -> dict[tuple[str, ...], _Module]:
    """The modules outside numbered layers whose path ends in a known name; the innermost ones, if they are nested."""
    modules: dict[tuple[str, ...], _Module] = {}
    for name in names:
        parts = name_parts(name)
        for end in range(len(parts) - 1, 0, -1):
            path = tuple(parts[:end])
            if in_numbered_layer(path):
                continue
            if known := next((one for one in known_names if ends_in(path, one)), ""):
                modules.setdefault(path, _Module(known)).parameters[tuple(parts[end:])] = name
                break
    return modules


def _candidate(path: tuple[str, ...], module: _Module, describe: Describe, ambiguous: bool) -> Candidate | None:
    """The module as a candidate; None if it cannot be a head or an embedding."""
    exact = ".".join(path) in (*HEADS, *EMBEDDINGS)

    def candidate(weight: str, shape: tuple[int, ...] = (), problem: str = "") -> Candidate:
        return Candidate(path, weight, shape, problem, exact, ambiguous)

    weight = module.parameters.get(("weight",))
    schemes = [(storage_scheme(below), name) for below, name in module.parameters.items()]
    if adapter := next((name for scheme, name in schemes if scheme == "an adapter"), None):
        return candidate(adapter, problem="part of an adapter")
    encoded = next(((scheme, name) for scheme, name in schemes if scheme), None)
    if weight is None:
        special = (f"it uses {encoded[0]}", encoded[1]) if encoded else _unknown_parameter(module, describe)
        return candidate(special[1], problem=f"not a plain weight; {special[0]}") if special else None
    info = describe(weight)
    if info is None:
        return candidate(weight)
    scheme = encoded[0] if encoded else ""
    if has_no_float_rows(info.dtype) and (scheme or not ambiguous):
        return candidate(weight, problem=f"stored as {info.dtype}{f' by {scheme}' if scheme else ''}")
    if len(info.shape) != 2 or not prod(info.shape):
        return None if ambiguous else candidate(weight)
    if problem := _scale_problem(module.parameters, describe, info):
        return candidate(weight, problem=problem)
    return candidate(weight, info.shape)


def _unknown_parameter(module: _Module, describe: Describe) -> tuple[str, str] | None:
    """The problem with a matrix that is a parameter of a head itself but not its weight, and the matrix's name."""
    if module.known_name not in HEADS:
        return None
    for below, name in module.parameters.items():
        if len(below) == 1 and below != ("bias",) and _describe_matrix(describe, name):
            return f"the parameter name {below[0]!r} is unknown", name
    return None


def _scale_problem(parameters: Mapping[tuple[str, ...], str], describe: Describe, weight: TensorInfo) -> str:
    """Why scales change the weight's rows; empty if they do not.

    One scale for the tensor or for each row changes no cosine; one for each block or each column does.
    """
    for below, name in parameters.items():
        if len(below) == 1 and below[0] in ("weight_scale_inv", "weight_scale", "weight_scales", "scales", "scale"):
            info = describe(name)
            if info is not None and prod(info.shape) not in (1, weight.shape[0]):
                return f"scaled in blocks by {name!r}"
        elif (scheme := storage_scheme(below)) and scheme != "FP8 with scales" and weight.dtype.startswith("F8"):
            return f"stored as {weight.dtype} by {scheme}"
    return ""
