"""Which tensor of a checkpoint is the LM head, and whether it is tied to the embedding: the tensors decide."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from costbank.checkpoints.base import Checkpoint, Matrix, same_bytes
from costbank.errors import CheckpointError

__all__ = ["EMBEDDINGS", "HEADS", "Head", "choose_head"]

HEADS = (
    "lm_head.weight",  # most decoders
    "embed_out.weight",  # GPT-NeoX
    "output.weight",  # InternLM2, Llama as Meta saves it, GGUF
    "transformer.output_layer.weight",  # ChatGLM
    "cls.predictions.decoder.weight",  # BERT
    "model.transformer.ff_out.weight",  # OLMo
    "language_model.lm_head.weight",  # vision models
)
EMBEDDINGS = (
    "model.embed_tokens.weight",
    "transformer.wte.weight",  # GPT-2
    "wte.weight",
    "gpt_neox.embed_in.weight",
    "transformer.word_embeddings.weight",
    "word_embeddings.weight",  # BLOOM
    "transformer.embedding.word_embeddings.weight",  # ChatGLM
    "model.tok_embeddings.weight",  # InternLM2
    "tok_embeddings.weight",  # Llama as Meta saves it
    "model.transformer.wte.weight",  # OLMo
    "model.decoder.embed_tokens.weight",  # OPT
    "embeddings.word_embeddings.weight",  # BERT and sentence encoders
    "embeddings.tok_embeddings.weight",  # ModernBERT
    "backbone.embeddings.weight",  # Mamba
    "embed_tokens.weight",
    "shared.weight",  # T5
    "token_embd.weight",  # GGUF
)
_TOO_COMMON = ("output.weight",)  # what many modules call a layer of theirs: a head only by its whole name
_LISTED = 8


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
        guessed: whether only the end of its name is known.
    """

    matrix: Matrix
    role: str
    tied: bool | None
    config_tied: bool | None
    guessed: bool = False

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


def choose_head(checkpoint: Checkpoint, name: str | None = None) -> Head:
    """The LM head, else the token embedding, else the only tensor, else an error that lists what there is.

    Args:
        checkpoint: the model.
        name: a tensor to take instead.

    Raises:
        CheckpointError: there is no such tensor, several could be meant, or its file is missing or broken.
    """
    config_tied = _config_tied(checkpoint)
    if name:
        if name not in checkpoint.names:
            close = get_close_matches(name, checkpoint.names, _LISTED, 0.3) or list(checkpoint.names)[:_LISTED]
            raise CheckpointError(f"{checkpoint.path} holds no tensor {name!r}", f"there are: {', '.join(close)}")
        return Head(checkpoint.matrix(name), "named", None, config_tied)
    head, embedding = (_find(checkpoint.names, known) for known in (HEADS, EMBEDDINGS))
    if not head and checkpoint.missing:
        raise CheckpointError(
            f"no head is among the parts of {checkpoint.path}, and {checkpoint.missing[0]} is missing",
            "put all parts there, or name a tensor with --tensor",
        )
    if not head and not embedding and len(checkpoint.names) == 1:
        return Head(checkpoint.matrix(next(iter(checkpoint.names))), "only", None, config_tied)
    if not head and not embedding:
        shown = ", ".join(list(checkpoint.names)[:_LISTED])
        raise CheckpointError(
            f"none of the {len(checkpoint.names):,} tensors of {checkpoint.path} is known as a head or embedding",
            f"name it with --tensor; there are: {shown}{' …' if len(checkpoint.names) > _LISTED else ''}",
        )
    if not head:
        return Head(checkpoint.matrix(embedding), "embedding", True, config_tied, embedding not in EMBEDDINGS)
    matrix = checkpoint.matrix(head)
    tied = None
    if embedding and checkpoint.names[embedding].is_file():
        tied = same_bytes(matrix, checkpoint.matrix(embedding))
    return Head(matrix, "head", tied, config_tied, head not in HEADS)


def _find(names: Iterable[str], known: Sequence[str]) -> str:
    """The first known name that is there, else the one tensor outside the layers whose name ends in one."""
    names = list(names)
    for name in known:
        if name in names:
            return name
    outside = [name for name in names if not any(part.isdecimal() for part in name.split("."))]
    for ending in known:
        if ending in _TOO_COMMON:
            continue
        found = [name for name in outside if name.endswith(f".{ending}")]
        if len(found) > 1:
            raise CheckpointError(
                f"several tensors could be meant: {', '.join(found[:_LISTED])}", "choose one with --tensor"
            )
        if found:
            return found[0]
    return ""


def _config_tied(checkpoint: Checkpoint) -> bool | None:
    config = checkpoint.config
    for part in (config, *(config.get(key) for key in ("text_config", "language_config", "llm_config"))):
        if isinstance(part, dict) and isinstance(part.get("tie_word_embeddings"), bool):
            return part["tie_word_embeddings"]
    return None
