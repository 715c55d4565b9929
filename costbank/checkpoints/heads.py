"""The LM head of a checkpoint, and whether it is tied to the embedding: the tensors decide, not the config."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from costbank.checkpoints.base import Checkpoint, Matrix, same_bytes
from costbank.checkpoints.candidates import (
    Candidate,
    embedding_candidates,
    head_candidates,
    meant,
    unknown_heads,
)
from costbank.checkpoints.names import EMBEDDINGS, HEADS
from costbank.errors import CheckpointError

__all__ = ["Head", "choose_head"]

_LISTED = 8
_MERGE = (
    "merge the adapter into its base model first (PeftModel.from_pretrained(base, adapter).merge_and_unload(), then "
    "save_pretrained), and give that folder"
)


@dataclass(frozen=True)
class Head:
    """The matrix whose rows stand for tokens.

    Attributes:
        matrix: the rows.
        role: `head`, `embedding` (there is no head of its own), `named` (asked for by name) or `only` (there is no
            other tensor).
        tied: whether head and embedding are the same, which they are also where there is no head of its own; None
            where only one of them can be read or was asked for.
        config_tied: what `config.json` says of it; None where it says nothing.
        reason: why this tensor was taken, as the end of a sentence.
        guessed: whether only the end of its name is known.
        others: heads that were not taken, with their rows.
    """

    matrix: Matrix
    role: str
    tied: bool | None
    config_tied: bool | None
    reason: str
    guessed: bool = False
    others: tuple[str, ...] = ()

    @property
    def disagreement(self) -> str:
        """What the config says against the tensors, or nothing."""
        if self.tied is None or self.config_tied is None or self.tied == self.config_tied:
            return ""
        said = "tied to" if self.config_tied else "apart from"
        fact = "there is no head of its own, or it equals the embedding" if self.tied else "their tensors differ"
        return (
            f"the config says that head is {said} the embedding, but {fact}; the rows are those of {self.matrix.name}"
        )

    @property
    def line(self) -> str:
        """What was taken, and why, in one line."""
        rows, dim = self.matrix.shape
        others = f"; not taken: {', '.join(self.others)}" if self.others else ""
        insist = "; name another tensor with --tensor" if self.guessed or self.others else ""
        return f"took {self.matrix.name!r} ({rows:,} × {dim:,}, {self.matrix.dtype}): {self.reason}{others}{insist}"


def choose_head(checkpoint: Checkpoint, name: str | None = None, tokens: int | None = None) -> Head:
    """The LM head, else the token embedding, else the only tensor, else an error that lists what there is.

    Args:
        checkpoint: the model.
        name: a tensor to take instead.
        tokens: how many tokens the tokenizer has, where it is known; decides between heads of several parts.

    Raises:
        CheckpointError: there is no such tensor, several could be meant, the head is quantised or adapted, or its file
            is missing or broken.
    """
    config_tied = _config_tied(checkpoint)
    if name:
        _check_name(checkpoint, name)
        return Head(checkpoint.matrix(name), "named", None, config_tied, "named with --tensor")
    embeddings = embedding_candidates(checkpoint.names, checkpoint.describe)
    heads = head_candidates(checkpoint.names, checkpoint.describe, tokens, embeddings, checkpoint.gguf)
    if heads:
        return _head(checkpoint, heads, embeddings, tokens, config_tied)
    if checkpoint.missing:
        raise CheckpointError(
            f"no head is among the parts of {checkpoint.path}, and {checkpoint.missing[0]} is missing",
            "put all parts there, or name a tensor with --tensor",
        )
    if embeddings:
        return _embedding(checkpoint, embeddings, tokens, config_tied)
    if len(checkpoint.names) == 1:
        return Head(checkpoint.matrix(next(iter(checkpoint.names))), "only", None, config_tied, "the only tensor")
    _refuse_adapter(checkpoint)
    if not checkpoint.names:
        raise CheckpointError(f"{checkpoint.path} holds no tensors", "give the files that hold the model's weights")
    shown = ", ".join(list(checkpoint.names)[:_LISTED])
    raise CheckpointError(
        f"none of the {len(checkpoint.names):,} tensors of {checkpoint.path} is known as a head or embedding",
        f"name it with --tensor; there are: {shown}{' …' if len(checkpoint.names) > _LISTED else ''}",
    )


def _head(
    checkpoint: Checkpoint,
    heads: Sequence[Candidate],
    embeddings: Sequence[Candidate],
    tokens: int | None,
    config_tied: bool | None,
) -> Head:
    chosen = _one(checkpoint, heads, tokens, HEADS, embeddings)
    matrix = checkpoint.matrix(chosen.weight)
    apart = _leaves_alone(checkpoint, chosen, "head")
    alike = [one for one in embeddings if one.shape and not one.trouble and one.shape == matrix.shape]
    alike = [one for one in alike if checkpoint.names[one.weight].is_file()] or [
        one for one in embeddings if one.shape and checkpoint.names[one.weight].is_file()
    ]
    equal = next((one for one in alike if same_bytes(matrix, checkpoint.matrix(one.weight))), None)
    reason = "the LM head by its name"
    if chosen.weak:
        reason = "it is not inside a layer, and its name and number of rows fit a head"
        if checkpoint.gguf and chosen.path == ("output",):
            reason = "the LM head by its name"
    if equal:
        reason += f"; it equals the embedding {equal.weight!r}"
    elif alike:
        reason += f"; it differs from the embedding {alike[0].weight!r}"
    reason += apart
    others = tuple(f"{one.weight} ({one.rows:,} rows)" for one in heads if one is not chosen and one.shape)
    tied = bool(equal) if alike else None
    return Head(matrix, "head", tied, config_tied, reason, not chosen.exact, others[:_LISTED])


def _embedding(
    checkpoint: Checkpoint, embeddings: Sequence[Candidate], tokens: int | None, config_tied: bool | None
) -> Head:
    chosen = _one(checkpoint, embeddings, tokens, EMBEDDINGS, ())
    if perhaps := unknown_heads(checkpoint.names, checkpoint.describe, tokens, chosen, embeddings):
        options = " or ".join(f"--tensor {name}" for name in (*perhaps[: _LISTED - 1], chosen.weight))
        raise CheckpointError(
            f"{checkpoint.path} has no head of a known name, but {perhaps[0]!r} has as many rows as one, so it may "
            "be the head",
            f"choose one: {options}",
        )
    _refuse_adapter(checkpoint)
    reason = "the token embedding, as the model has no head of its own" + _leaves_alone(checkpoint, chosen, "embedding")
    return Head(checkpoint.matrix(chosen.weight), "embedding", True, config_tied, reason, not chosen.exact)


def _one(
    checkpoint: Checkpoint,
    candidates: Sequence[Candidate],
    tokens: int | None,
    known: Sequence[str],
    embeddings: Sequence[Candidate],
) -> Candidate:
    """The one that is meant.

    Raises:
        CheckpointError: several could be, or the one is not a plain matrix.
    """
    left = meant(candidates, tokens, known, tied=known is EMBEDDINGS)
    if len(left) > 1 and not _all_equal(checkpoint, left):
        shown = ", ".join(map(str, left[:_LISTED]))
        raise CheckpointError(
            f"several tensors of {checkpoint.path} could be meant: {shown}",
            "choose one: " + " or ".join(f"--tensor {one.weight}" for one in left[:_LISTED] if not one.trouble),
        )
    chosen = left[0]
    if chosen.trouble:
        role = "embedding" if known is EMBEDDINGS else "head"
        if "adapter" in chosen.trouble:
            raise CheckpointError(
                f"tensor {chosen.weight!r} of {checkpoint.path} is {chosen.trouble} on the {role}, which changes its "
                "rows",
                _MERGE + _others(candidates, embeddings),
            )
        raise CheckpointError(
            f"the {role} of {checkpoint.path} is quantised or otherwise encoded: tensor {chosen.weight!r} is "
            f"{chosen.trouble}",
            "give the model as it was before that, or dequantise it first" + _others(candidates, embeddings),
        )
    return chosen


def _others(candidates: Sequence[Candidate], embeddings: Sequence[Candidate]) -> str:
    plain = [one for one in (*candidates, *embeddings) if one.shape and not one.trouble]
    if not plain:
        return ""
    shown = ", ".join(f"--tensor {one.weight} ({one.rows:,} rows)" for one in plain[:_LISTED])
    return f"; to take other rows instead: {shown}"


def _all_equal(checkpoint: Checkpoint, candidates: Sequence[Candidate]) -> bool:
    """Whether all are copies of one matrix."""
    first, *rest = candidates
    if any(one.trouble or one.shape != first.shape or not one.shape for one in candidates):
        return False
    matrix = checkpoint.matrix(first.weight)
    return all(same_bytes(matrix, checkpoint.matrix(one.weight)) for one in rest)


def _refuse_adapter(checkpoint: Checkpoint) -> None:
    """An adapter's folder may hold an embedding, but whether that is tied to the head is in the base model."""
    files = {file.name for file in checkpoint.names.values()} or {""}
    adapted = any(name.startswith("base_model.model.") or ".lora_" in name for name in checkpoint.names)
    if not adapted and not all(file.startswith("adapter_") for file in files):
        return
    base = checkpoint.adapter.get("base_model_name_or_path")
    of = f" of {base}" if isinstance(base, str) and base else ""
    raise CheckpointError(
        f"{checkpoint.path} holds an adapter{of}, and the head is in its base model",
        f"give the base model, whose head an adapter of the layers leaves as it is; or {_MERGE}",
    )


def _leaves_alone(checkpoint: Checkpoint, chosen: Candidate, role: str) -> str:
    """What to say of an adapter next to the model's weights, which are read without it.

    Raises:
        CheckpointError: by its configuration the adapter changes the rows.
    """
    config, files = checkpoint.adapter, {file.name for file in checkpoint.names.values()}
    if not config or all(file.startswith("adapter_") for file in files):
        return ""
    names = {chosen.path[-1], *(("lm_head",) if role == "embedding" else ())}
    for setting in ("modules_to_save", "target_modules", "target_parameters", "trainable_token_indices"):
        given = config.get(setting)
        listed = [given] if isinstance(given, str) else list(given or ()) if isinstance(given, list | dict) else []
        trained = setting == "trainable_token_indices" and role == "embedding" and bool(given)
        if trained or any(_means(str(one), name) for one in listed for name in names):
            raise CheckpointError(
                f"next to the weights in {checkpoint.path} is an adapter whose {setting} changes the {role}",
                f"{_MERGE}; to take the rows without the adapter: --tensor {chosen.weight}",
            )
    return f"; the adapter next to the weights leaves the {role} as it is"


def _means(given: str, module: str) -> bool:
    """Whether a name or regular expression of PEFT's takes in a module of this name."""
    return re.search(rf"(?<!\w){re.escape(module)}(?!\w)", given) is not None


def _check_name(checkpoint: Checkpoint, name: str) -> None:
    if name in checkpoint.names:
        return
    under = [one for one in checkpoint.names if one.startswith(f"{name}.")][:_LISTED]
    close = under or get_close_matches(name, checkpoint.names, _LISTED, 0.3) or list(checkpoint.names)[:_LISTED]
    raise CheckpointError(f"{checkpoint.path} holds no tensor {name!r}", f"there are: {', '.join(close)}")


def _config_tied(checkpoint: Checkpoint) -> bool | None:
    config = checkpoint.config
    thinker = config.get("thinker_config")
    inner = [part.get("text_config") for part in (thinker,) if isinstance(part, dict)]
    for part in (config, *(config.get(key) for key in ("text_config", "language_config", "llm_config")), *inner):
        if isinstance(part, dict) and isinstance(part.get("tie_word_embeddings"), bool):
            return part["tie_word_embeddings"]
    return None
