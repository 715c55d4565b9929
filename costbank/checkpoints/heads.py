"""Choose the LM head of a checkpoint, and check whether it is tied. The tensors decide that, not the config."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from costbank.checkpoints.base import Checkpoint, Matrix, same_bytes
from costbank.checkpoints.candidates import (
    Candidate,
    embedding_candidates,
    head_candidates,
    narrow_down,
    unnamed_heads,
)
from costbank.checkpoints.names import EMBEDDINGS, HEADS
from costbank.errors import CheckpointError

__all__ = ["HeadChoice", "choose_head"]

_MAX_LISTED = 8
_MERGE = (
    "merge the adapter into its base model first (PeftModel.from_pretrained(base, adapter).merge_and_unload(), then "
    "save_pretrained), and give that folder"
)


@dataclass(frozen=True)
class HeadChoice:
    """The matrix with a row for each token, and why it was chosen.

    Attributes:
        matrix: the rows.
        role: `head`; `embedding` (the model has no head of its own); `named` (the user named the tensor); or `only`
            (the checkpoint has one tensor).
        tied: whether the head equals the embedding, or the model has no head of its own; None if they were not
            compared, because only one of them can be read or the user named the tensor.
        config_tied: `tie_word_embeddings` of `config.json`; None if the config does not have it.
        reason: why this tensor was chosen, as the end of a sentence.
        guessed: whether only the end of the tensor's name is a known name.
        others: the heads that were not chosen, with their numbers of rows.
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
        """How the config contradicts the tensors; empty if it does not."""
        if self.tied is None or self.config_tied is None or self.tied == self.config_tied:
            return ""
        config = "is tied to" if self.config_tied else "is not tied to"
        fact = (
            "the model has no head of its own, or its head equals the embedding"
            if self.tied
            else "the two tensors differ"
        )
        return f"the config says that the head {config} the embedding, but {fact}; the rows are from {self.matrix.name}"

    @property
    def line(self) -> str:
        """The choice and its reason in one line."""
        rows, dim = self.matrix.shape
        others = f"; not taken: {', '.join(self.others)}" if self.others else ""
        hint = "; choose another tensor with --tensor" if self.guessed or self.others else ""
        return f"took {self.matrix.name!r} ({rows:,} × {dim:,}, {self.matrix.dtype}): {self.reason}{others}{hint}"


def choose_head(checkpoint: Checkpoint, name: str | None = None, tokens: int | None = None) -> HeadChoice:
    """Choose the LM head, else the token embedding, else the only tensor.

    Args:
        checkpoint: the model.
        name: the tensor to use instead.
        tokens: how many tokens the tokenizer has, if that is known. It helps to choose between several heads.

    Raises:
        CheckpointError: the tensor does not exist, several could be the head, none could be, the head is quantized or
            adapted, or its file is missing or broken.
    """
    config_tied = _config_tied(checkpoint)
    if name:
        _check_name(checkpoint, name)
        return HeadChoice(checkpoint.matrix(name), "named", None, config_tied, "named with --tensor")
    embeddings = embedding_candidates(checkpoint.files, checkpoint.describe)
    heads = head_candidates(checkpoint.files, checkpoint.describe, tokens, embeddings, checkpoint.is_gguf)
    if heads:
        return _choose_head(checkpoint, heads, embeddings, tokens, config_tied)
    if checkpoint.missing_files:
        raise CheckpointError(
            f"the files in {checkpoint.path} contain no head, and {checkpoint.missing_files[0]} is missing",
            "put all parts into one folder, or choose a tensor with --tensor",
        )
    if embeddings:
        return _choose_embedding(checkpoint, embeddings, tokens, config_tied)
    if len(checkpoint.files) == 1:
        return HeadChoice(checkpoint.matrix(next(iter(checkpoint.files))), "only", None, config_tied, "the only tensor")
    _refuse_adapter(checkpoint)
    if not checkpoint.files:
        raise CheckpointError(
            f"{checkpoint.path} contains no tensors", "give the files that contain the model's weights"
        )
    shown = ", ".join(list(checkpoint.files)[:_MAX_LISTED])
    more = " …" if len(checkpoint.files) > _MAX_LISTED else ""
    raise CheckpointError(
        f"none of the {len(checkpoint.files):,} tensors of {checkpoint.path} has a known head or embedding name",
        f"choose one with --tensor: {shown}{more}",
    )


def _choose_head(
    checkpoint: Checkpoint,
    heads: Sequence[Candidate],
    embeddings: Sequence[Candidate],
    tokens: int | None,
    config_tied: bool | None,
) -> HeadChoice:
    chosen = _choose_one(checkpoint, heads, tokens, HEADS, embeddings)
    matrix = checkpoint.matrix(chosen.weight)
    adapter_remark = _adapter_remark(checkpoint, chosen, "head")
    comparable = [one for one in embeddings if one.shape and not one.problem and one.shape == matrix.shape]
    comparable = [one for one in comparable if checkpoint.files[one.weight].is_file()] or [
        one for one in embeddings if one.shape and checkpoint.files[one.weight].is_file()
    ]
    equal = next((one for one in comparable if same_bytes(matrix, checkpoint.matrix(one.weight))), None)
    reason = "its name is that of an LM head"
    if chosen.ambiguous and not (checkpoint.is_gguf and chosen.path == ("output",)):
        reason = "it is not inside a layer, and its name and number of rows fit a head"
    if equal:
        reason += f"; it equals the embedding {equal.weight!r}"
    elif comparable:
        reason += f"; it differs from the embedding {comparable[0].weight!r}"
    reason += adapter_remark
    others = tuple(f"{one.weight} ({one.rows:,} rows)" for one in heads if one is not chosen and one.shape)
    tied = bool(equal) if comparable else None
    return HeadChoice(matrix, "head", tied, config_tied, reason, not chosen.exact, others[:_MAX_LISTED])


def _choose_embedding(
    checkpoint: Checkpoint, embeddings: Sequence[Candidate], tokens: int | None, config_tied: bool | None
) -> HeadChoice:
    chosen = _choose_one(checkpoint, embeddings, tokens, EMBEDDINGS, ())
    if heads := unnamed_heads(checkpoint.files, checkpoint.describe, tokens, chosen, embeddings):
        options = " or ".join(f"--tensor {name}" for name in (*heads[: _MAX_LISTED - 1], chosen.weight))
        raise CheckpointError(
            f"no tensor of {checkpoint.path} has a known head name, but {heads[0]!r} has as many rows as a head, so it "
            "may be the head",
            f"choose one: {options}",
        )
    _refuse_adapter(checkpoint)
    reason = "it is the token embedding, and the model has no head of its own"
    reason += _adapter_remark(checkpoint, chosen, "embedding")
    return HeadChoice(checkpoint.matrix(chosen.weight), "embedding", True, config_tied, reason, not chosen.exact)


def _choose_one(
    checkpoint: Checkpoint,
    candidates: Sequence[Candidate],
    tokens: int | None,
    known_names: Sequence[str],
    embeddings: Sequence[Candidate],
) -> Candidate:
    """The right candidate.

    Raises:
        CheckpointError: several different ones remain, or it is not a plain matrix.
    """
    role = "embedding" if known_names is EMBEDDINGS else "head"
    remaining = narrow_down(candidates, tokens, known_names, tied=role == "embedding")
    if len(remaining) > 1 and not _all_equal(checkpoint, remaining):
        shown = ", ".join(map(str, remaining[:_MAX_LISTED]))
        raise CheckpointError(
            f"several tensors of {checkpoint.path} could be the {role}: {shown}",
            "choose one: "
            + " or ".join(f"--tensor {one.weight}" for one in remaining[:_MAX_LISTED] if not one.problem),
        )
    chosen = remaining[0]
    if "adapter" in chosen.problem:
        raise CheckpointError(
            f"tensor {chosen.weight!r} of {checkpoint.path} is {chosen.problem} on the {role}, which changes its rows",
            _MERGE + _alternatives(candidates, embeddings),
        )
    if chosen.problem:
        raise CheckpointError(
            f"the {role} of {checkpoint.path} is quantized or otherwise encoded: tensor {chosen.weight!r} is "
            f"{chosen.problem}",
            "give the model without quantization, or dequantize it first" + _alternatives(candidates, embeddings),
        )
    return chosen


def _alternatives(candidates: Sequence[Candidate], embeddings: Sequence[Candidate]) -> str:
    """The plain matrices among the candidates, as the end of a hint."""
    plain = [one for one in (*candidates, *embeddings) if one.shape and not one.problem]
    if not plain:
        return ""
    shown = ", ".join(f"--tensor {one.weight} ({one.rows:,} rows)" for one in plain[:_MAX_LISTED])
    return f"; to use other rows instead: {shown}"


def _all_equal(checkpoint: Checkpoint, candidates: Sequence[Candidate]) -> bool:
    """Whether all candidates are copies of one matrix."""
    first, *rest = candidates
    if any(one.problem or one.shape != first.shape or not one.shape for one in candidates):
        return False
    matrix = checkpoint.matrix(first.weight)
    return all(same_bytes(matrix, checkpoint.matrix(one.weight)) for one in rest)


def _refuse_adapter(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that is only an adapter. Its base model shows whether the embedding is tied to the head.

    Raises:
        CheckpointError: the checkpoint is an adapter.
    """
    has_adapter_names = any(name.startswith("base_model.model.") or ".lora_" in name for name in checkpoint.files)
    if not has_adapter_names and (not checkpoint.files or not _has_adapter_files_only(checkpoint)):
        return
    base = checkpoint.adapter_config.get("base_model_name_or_path")
    of_base = f" of {base}" if isinstance(base, str) and base else ""
    raise CheckpointError(
        f"{checkpoint.path} contains an adapter{of_base}, and the head is in its base model",
        f"give the base model if the adapter changes only layers; or {_MERGE}",
    )


def _has_adapter_files_only(checkpoint: Checkpoint) -> bool:
    return all(file.name.startswith("adapter_") for file in checkpoint.files.values())


def _adapter_remark(checkpoint: Checkpoint, chosen: Candidate, role: str) -> str:
    """A remark on an adapter next to the model's weights, as the end of a sentence; empty if there is none.

    Raises:
        CheckpointError: the adapter's configuration says that it changes the rows.
    """
    config = checkpoint.adapter_config
    if not config or _has_adapter_files_only(checkpoint):
        return ""
    modules = {chosen.path[-1], *(("lm_head",) if role == "embedding" else ())}
    for setting in ("modules_to_save", "target_modules", "target_parameters", "trainable_token_indices"):
        value = config.get(setting)
        listed = [value] if isinstance(value, str) else list(value or ()) if isinstance(value, list | dict) else []
        trains_tokens = setting == "trainable_token_indices" and role == "embedding" and bool(value)
        if trains_tokens or any(_names_module(str(one), module) for one in listed for module in modules):
            raise CheckpointError(
                f"there is an adapter next to the weights in {checkpoint.path}, and its {setting} changes the {role}",
                f"{_MERGE}; to use the rows without the adapter: --tensor {chosen.weight}",
            )
    return f"; the adapter next to the weights does not change the {role}"


def _names_module(pattern: str, module: str) -> bool:
    """Whether a name or regular expression of PEFT contains the name of a module."""
    return re.search(rf"(?<!\w){re.escape(module)}(?!\w)", pattern) is not None


def _check_name(checkpoint: Checkpoint, name: str) -> None:
    if name in checkpoint.files:
        return
    inside = [one for one in checkpoint.files if one.startswith(f"{name}.")][:_MAX_LISTED]
    near = inside or get_close_matches(name, checkpoint.files, _MAX_LISTED, 0.3) or list(checkpoint.files)[:_MAX_LISTED]
    raise CheckpointError(f"{checkpoint.path} has no tensor {name!r}", f"choose an existing one: {', '.join(near)}")


def _config_tied(checkpoint: Checkpoint) -> bool | None:
    """`tie_word_embeddings` of the config, or of its part for the text model."""
    config = checkpoint.config
    thinker = config.get("thinker_config")
    inner = [thinker.get("text_config")] if isinstance(thinker, dict) else []
    for part in (config, *(config.get(key) for key in ("text_config", "language_config", "llm_config")), *inner):
        if isinstance(part, dict) and isinstance(part.get("tie_word_embeddings"), bool):
            return part["tie_word_embeddings"]
    return None
