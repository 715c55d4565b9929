"""Find the tokenizer of a model's head, and check that it fits.

With a wrong tokenizer, every row of the bank would belong to the wrong token, and no later step could detect this. So
the tokens of a named tokenizer are compared with those of the model's own tokenizer, if the model's folder or GGUF file
has one. Otherwise, the size of the named tokenizer is compared with the number of rows.
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

_MAX_SHOWN = 3
_OTHER_TOKENIZER_HINT = (
    "remove --tokenizer, or name the model's own tokenizer; to build the bank anyway, use --accept-other-tokenizer"
)


@dataclass(frozen=True)
class HeadTokenizer:
    """The tokenizer for a model's head.

    Attributes:
        tokenizer: the tokenizer.
        own: whether it is in the model's folder or GGUF file.
        compared: whether its ids were compared with those of the model's own tokenizer.
        notes: differences that the comparison found.
    """

    tokenizer: Tokenizer
    own: bool
    compared: bool
    notes: tuple[str, ...] = ()

    @property
    def least_rows(self) -> int:
        """The minimum number of rows of a head: one for each token, without the added tokens at the end."""
        size = self.tokenizer.vocab.size
        while size and size - 1 in self.tokenizer.added_ids:
            size -= 1
        return size

    def vocab_of(self, head: HeadChoice, accept_other: bool) -> tuple[Vocab, tuple[str, ...]]:
        """The vocabulary of the head's rows, with padding rows and without tokens that have no row; and all notes.

        Args:
            head: the head.
            accept_other: accept the tokenizer even if it is probably not the model's.

        Raises:
            CheckpointError: the head has too few rows, or the tensor is probably transposed.
            TokenizerError: `accept_other` is false, and too many rows have no token, or some rows have no token and the
                model's ids may be shifted.
        """
        vocab, notes = self.tokenizer.vocab, list(self.notes)
        tensor, rows = head.matrix.name, head.matrix.shape[0]
        if rowless := range(rows, vocab.size):
            if rows < self.least_rows:
                raise CheckpointError(
                    f"tensor {tensor!r} has {rows:,} rows, but the tokenizer has {vocab.size:,} tokens",
                    "use the tokenizer that the model was trained with"
                    + (f", or another tensor with --tensor: {', '.join(head.others)}" if head.others else ""),
                )
            shown = ", ".join(vocab.display(token_id) for token_id in rowless[:_MAX_SHOWN])
            more = ", …" if len(rowless) > _MAX_SHOWN else ""
            added = counted(len(rowless), "added token")
            get = "gets" if len(rowless) == 1 else "get"
            notes.append(f"{added} after the head's {rows:,} rows {get} no vector: {shown}{more}")
            return vocab.first(rows), tuple(notes)
        if padding := rows - vocab.size:
            if head.matrix.shape[1] == vocab.size and not accept_other:
                raise CheckpointError(
                    f"tensor {tensor!r} is {rows:,} × {vocab.size:,}, and the tokenizer has {vocab.size:,} tokens: it "
                    "probably has one column per token instead of one row",
                    "store its transpose; to use it unchanged, use --accept-other-tokenizer",
                )
            is_unchecked = not (self.own or self.compared)
            if is_unchecked and not accept_other and too_many_rows(rows, vocab.size):
                raise TokenizerError(
                    f"{self.tokenizer.file} has {vocab.size:,} tokens, but tensor {tensor!r} has {rows:,} rows: "
                    "padding does not explain so many rows without a token",
                    _OTHER_TOKENIZER_HINT,
                )
            if not accept_other and isinstance(self.tokenizer, SentencePieceTokenizer) and self.tokenizer.ids_assumed:
                raise TokenizerError(
                    f"{self.tokenizer.file} has {vocab.size:,} pieces, but tensor {tensor!r} has {rows:,} rows: models "
                    "with a file of this name usually shift ids, and no file next to it names the tokenizer's class",
                    'add a tokenizer_config.json with its class, such as {"tokenizer_class": "XLMRobertaTokenizer"}, '
                    "or use the model's tokenizer.json; if piece numbers are ids, use --accept-other-tokenizer",
                )
            notes.append(f"the last {padding:,} of the head's {rows:,} rows have no token and count as padding")
        return vocab.padded(rows), tuple(notes)


def head_tokenizer(config: LMHeadBuild, model: Path) -> HeadTokenizer:
    """The named tokenizer, or else the one in the model's folder or GGUF file.

    Raises:
        InputNotFoundError: no tokenizer is named, and the model has none.
        TokenizerError: the tokenizer cannot be read, or it is not the model's and `accept_other_tokenizer` is false.
    """
    if config.tokenizer is None:
        try:
            tokenizer = _own(config, model)
        except InputNotFoundError as error:
            raise InputNotFoundError(error.message, "name a tokenizer with --tokenizer FILE") from None
        return HeadTokenizer(tokenizer, own=True, compared=False)
    named = load_tokenizer(config.tokenizer, config.tokenizer_kind)
    folder = model if model.is_dir() else model.parent
    is_own = find_gguf(model) is None and _is_in_folder(config.tokenizer, folder)
    if is_own and _is_default_of(folder, config.tokenizer):
        return HeadTokenizer(named, own=True, compared=False)
    accept_other = config.lm_head.accept_other_tokenizer
    try:
        own = _own(config.model_copy(update={"tokenizer_kind": "auto"}), model)
    except InputNotFoundError:
        if not accept_other:
            _check_class(named, folder)
        return HeadTokenizer(named, own=is_own, compared=False)
    except TokenizerError as error:
        note = f"the model's own tokenizer cannot be read, so {named.file} was not compared with it: {error.message}"
        return HeadTokenizer(named, own=is_own, compared=False, notes=() if is_own else (note,))
    return HeadTokenizer(named, own=is_own, compared=True, notes=_compare(named, own, accept_other))


def _own(config: LMHeadBuild, model: Path) -> Tokenizer:
    if gguf := find_gguf(model):
        return GGUFTokenizer(gguf)
    return load_tokenizer(find_tokenizer(model if model.is_dir() else model.parent), config.tokenizer_kind)


def _is_in_folder(tokenizer: Path, folder: Path) -> bool:
    folder = folder.resolve()
    return folder in (tokenizer.resolve(), tokenizer.resolve().parent, tokenizer.parent.resolve())


def _is_default_of(folder: Path, tokenizer: Path) -> bool:
    """Whether the tokenizer is the one that `find_tokenizer` selects in the folder."""
    try:
        return tokenizer.is_dir() or tokenizer.resolve() == find_tokenizer(folder).resolve()
    except (InputNotFoundError, TokenizerError):
        return False


def _check_class(named: Tokenizer, folder: Path) -> None:
    """Refuse a SentencePiece model that uses piece numbers as ids if the model's configuration shifts ids."""
    settings = read_settings(folder / "tokenizer.model")
    if isinstance(named, SentencePieceTokenizer) and shifts_ids(settings) and not shifts_ids(named.settings):
        raise TokenizerError(
            f"the model in {folder} has the tokenizer class {tokenizer_class_of(settings)}, which shifts ids, but no "
            f"file next to {named.file} names this class",
            f"copy {named.file} to the model's folder with its original name, such as sentencepiece.bpe.model; if "
            "piece numbers are ids, use --accept-other-tokenizer",
        )


def _compare(named: Tokenizer, own: Tokenizer, accept_other: bool) -> tuple[str, ...]:
    """A note about ids that differ. Fine-tuning often renames special tokens, but not tokens of text.

    Raises:
        TokenizerError: tokens of text differ, and `accept_other` is false.
    """
    shared = min(named.vocab.size, own.vocab.size)
    one, other = named.vocab, own.vocab
    differing = [i for i in range(shared) if one.token(i) != other.token(i)]
    in_text = np.array([i for i in differing if one.ordinary[i] and other.ordinary[i]], np.int64)
    missing = np.flatnonzero(other.ordinary[shared:]).size
    if not differing and not missing:
        return ()
    shown = "; ".join(f"id {i} is '{one.display(i)}', but '{other.display(i)}' in the model's" for i in
                      (in_text.tolist() or differing)[:_MAX_SHOWN])  # fmt: skip
    parts = [f"{len(differing):,} of {shared:,} ids differ: {shown}"] if differing else []
    parts += (
        [f"{counted(missing, 'token')} of the model's {'is' if missing == 1 else 'are'} missing"] if missing else []
    )
    difference = f"{named.file} is not the model's tokenizer ({own.file}): " + "; ".join(parts)
    if (len(in_text) or missing) and not accept_other:
        raise TokenizerError(difference, _OTHER_TOKENIZER_HINT)
    return (difference,)
