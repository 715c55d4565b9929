"""Which tokenizer the rows of a model's head are for, and whether the two fit.

A wrong tokenizer gives a bank in which every row belongs to another token, and nothing later can see it. So the
tokenizer that is named is compared with the model's own, by what its ids stand for, where the model's folder or GGUF
file holds one, and by the number of rows otherwise.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from costbank.checkpoints import HeadChoice, find_gguf
from costbank.errors import CheckpointError, InputNotFoundError, TokenizerError
from costbank.plurals import counted
from costbank.sources.base import too_many_rows
from costbank.sources.lm_head.settings import LMHeadBuild
from costbank.tokenizers import GGUFTokenizer, SentencePieceTokenizer, Tokenizer, find_tokenizer, load_tokenizer
from costbank.tokenizers.added_tokens import read_settings
from costbank.tokenizers.class_ids import shifts_ids, tokenizer_class_of
from costbank.vocab import Vocab

__all__ = ["HeadTokenizer", "head_tokenizer"]

_MOST_SHOWN = 3
_INSIST = "leave --tokenizer out or give the model's own; --accept-other-tokenizer builds the bank all the same"


@dataclass(frozen=True)
class HeadTokenizer:
    """A tokenizer that goes with a model, and remarks on how it does.

    Attributes:
        own: whether it was found with the model, or named and lies in its folder.
        compared: whether its ids were compared with those of the model's own tokenizer.
    """

    tokenizer: Tokenizer
    own: bool
    compared: bool
    notes: tuple[str, ...] = ()

    @property
    def least_rows(self) -> int:
        """How many rows a head must have for the tokens, but for added ones after the last of the others."""
        size = self.tokenizer.vocab.size
        while size and size - 1 in self.tokenizer.added_ids:
            size -= 1
        return size

    def vocab_of(self, head: HeadChoice, insist: bool) -> tuple[Vocab, tuple[str, ...]]:
        """The vocabulary for the head's rows, and all remarks: padding after it, added tokens without a row left out.

        Raises:
            CheckpointError: there are fewer rows than tokens that are not added ones, or the tensor is transposed.
            TokenizerError: so many rows have no token that the tokenizer is another model's, or rows are left over and
                the tokenizer's ids may be shifted, and nobody insists.
        """
        vocab, notes = self.tokenizer.vocab, list(self.notes)
        tensor, rows = head.matrix.name, head.matrix.shape[0]
        if past := range(rows, vocab.size):
            if rows < self.least_rows:
                raise CheckpointError(
                    f"tensor {tensor!r} has {rows:,} rows, and the tokenizer has {vocab.size:,} tokens",
                    "give the tokenizer that the model was trained with"
                    + (f", or one of these with --tensor: {', '.join(head.others)}" if head.others else ""),
                )
            shown = ", ".join(vocab.display(token_id) for token_id in past[:_MOST_SHOWN])
            more = ", …" if len(past) > _MOST_SHOWN else ""
            added = counted(len(past), "added token")
            get = "gets" if len(past) == 1 else "get"
            notes.append(f"{added} past the head's {rows:,} rows {get} no vector: {shown}{more}")
            return vocab.first(rows), tuple(notes)
        if padding := rows - vocab.size:
            if head.matrix.shape[1] == vocab.size and not insist:
                raise CheckpointError(
                    f"tensor {tensor!r} is {rows:,} × {vocab.size:,}, and the tokenizer has {vocab.size:,} tokens: it "
                    "probably has a column for each token instead of a row",
                    "store its transpose; --accept-other-tokenizer takes it as it is",
                )
            unknown = not (self.own or self.compared)
            if unknown and not insist and too_many_rows(rows, vocab.size):
                raise TokenizerError(
                    f"{self.tokenizer.file} has {vocab.size:,} tokens, and tensor {tensor!r} has {rows:,} rows: "
                    "more rows without a token than any padding",
                    _INSIST,
                )
            if not insist and isinstance(self.tokenizer, SentencePieceTokenizer) and self.tokenizer.ids_assumed:
                raise TokenizerError(
                    f"{self.tokenizer.file} has {vocab.size:,} pieces, and tensor {tensor!r} has {rows:,} rows: models "
                    "with a file of this name usually shift ids, and no file next to it names the tokenizer's class",
                    'add {"tokenizer_class": "XLMRobertaTokenizer"}, or what it is, as tokenizer_config.json, or give '
                    "the model's tokenizer.json; --accept-other-tokenizer takes ids for the pieces' numbers",
                )
            notes.append(f"the last {padding:,} of the head's {rows:,} rows have no token and count as padding")
        return vocab.padded(rows), tuple(notes)


def head_tokenizer(config: LMHeadBuild, model: Path) -> HeadTokenizer:
    """The tokenizer that is named, else the one in the model's folder or GGUF file.

    Raises:
        InputNotFoundError: none is named and the model has none.
        TokenizerError: it cannot be read, or it is another than the model's own, and nobody insists.
    """
    if config.tokenizer is None:
        try:
            tokenizer = _own(config, model)
        except InputNotFoundError as error:
            raise InputNotFoundError(error.message, "give --tokenizer FILE") from None
        return HeadTokenizer(tokenizer, own=True, compared=False)
    given = load_tokenizer(config.tokenizer, config.tokenizer_kind)
    folder = model if model.is_dir() else model.parent
    within = find_gguf(model) is None and _lies_in(config.tokenizer, folder)
    if within and _is_found_in(folder, config.tokenizer):
        return HeadTokenizer(given, own=True, compared=False)
    insist = config.lm_head.accept_other_tokenizer
    try:
        own = _own(config.model_copy(update={"tokenizer_kind": "auto"}), model)
    except InputNotFoundError:
        if not insist:
            _check_class(given, folder)
        return HeadTokenizer(given, own=within, compared=False)
    except TokenizerError as error:
        note = f"the model's own tokenizer cannot be read, so {given.file} was not compared with it: {error.message}"
        return HeadTokenizer(given, own=within, compared=False, notes=() if within else (note,))
    return HeadTokenizer(given, own=within, compared=True, notes=_compare(given, own, insist))


def _own(config: LMHeadBuild, model: Path) -> Tokenizer:
    if gguf := find_gguf(model):
        return GGUFTokenizer(gguf)
    return load_tokenizer(find_tokenizer(model if model.is_dir() else model.parent), config.tokenizer_kind)


def _lies_in(tokenizer: Path, folder: Path) -> bool:
    tokenizer, folder = tokenizer.resolve(), folder.resolve()
    return tokenizer == folder or tokenizer.parent == folder


def _is_found_in(folder: Path, tokenizer: Path) -> bool:
    """Whether it is the tokenizer that the folder is known to have, or the only one that could be meant."""
    try:
        return tokenizer.is_dir() or tokenizer.resolve() == find_tokenizer(folder).resolve()
    except (InputNotFoundError, TokenizerError):
        return False


def _check_class(given: Tokenizer, folder: Path) -> None:
    """Refuse a SentencePiece model whose ids are its pieces' numbers where the model's configuration shifts them."""
    settings = read_settings(folder / "tokenizer.model")
    if isinstance(given, SentencePieceTokenizer) and shifts_ids(settings) and not shifts_ids(given.settings):
        raise TokenizerError(
            f"the model in {folder} has the tokenizer class {tokenizer_class_of(settings)}, which shifts ids, and no "
            f"file next to {given.file} says so",
            f"put {given.file} into the model's folder under the name that it has there, such as "
            "sentencepiece.bpe.model; --accept-other-tokenizer takes ids for the pieces' numbers",
        )


def _compare(given: Tokenizer, own: Tokenizer, insist: bool) -> tuple[str, ...]:
    """Remarks on ids that differ. Names of special tokens are often changed in fine-tuning; tokens of text are not."""
    shared = min(given.vocab.size, own.vocab.size)
    one, other = given.vocab, own.vocab
    differing = [i for i in range(shared) if one.token(i) != other.token(i)]
    in_text = np.array([i for i in differing if one.ordinary[i] and other.ordinary[i]], np.int64)
    missing = np.flatnonzero(other.ordinary[shared:]).size
    if not differing and not missing:
        return ()
    shown = "; ".join(f"id {i} is '{one.display(i)}' here and '{other.display(i)}' in the model's" for i in
                      (in_text.tolist() or differing)[:_MOST_SHOWN])  # fmt: skip
    parts = [f"{len(differing):,} of {shared:,} ids differ: {shown}"] if differing else []
    parts += (
        [f"{counted(missing, 'token')} of the model's {'is' if missing == 1 else 'are'} missing"] if missing else []
    )
    what = f"{given.file} is not the model's tokenizer ({own.file}): " + "; ".join(parts)
    if (len(in_text) or missing) and not insist:
        raise TokenizerError(what, _INSIST)
    return (what,)
