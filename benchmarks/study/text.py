"""The text of a study: split by blocks of lines, and encoded by a tokenizer that saw the training text alone.

A pretrained model's text is encoded by its own tokenizer. Pairs for fine-tuning, `PROMPT<TAB>ANSWER` per line, are
encoded as the prompt, a space, the answer and an end of line. The end of line belongs to the answer.
"""

import random
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from benchmarks.study.design import Setting
from costbank.errors import TokenNotFoundError, UsageError
from costbank.tokenizers import Tokenizer, load_tokenizer
from costbank.tokenizers.train import train_sentencepiece

__all__ = ["IGNORED", "Files", "StudyText", "open_text"]

IGNORED = -100
"""The label of tokens without a loss."""

_BLOCK_LINES = 200


@dataclass(frozen=True)
class Files:
    """The files of a study, on this machine.

    Attributes:
        text: text with a document per line.
        other: another text: that of the base model, if there is one; forgetting is measured on it.
        model: the folder of a pretrained model.
        encoder: the folder of a sentence encoder, with which samples are compared with the text.
    """

    text: Path
    other: Path | None = None
    model: Path | None = None
    encoder: Path | None = None


@dataclass(frozen=True)
class StudyText:
    """The files and tokens of a study.

    Attributes:
        model: the file of the tokenizer, or the model that has it.
        tokenizer: the tokenizer.
        train_file: the training text, of as many tokens as the setting says.
        all_file: all text but that of validation and test.
        train, valid, test: token ids. Lines follow each other with an end of sentence (a newline, if the tokenizer has
            none) between them.
        train_answers, valid_answers, test_answers: which of these tokens belong to answers; all, if the text is not
            pairs.
        other: token ids of another text, on which forgetting is measured; empty if there is none.
        base: the text of the base model.
    """

    model: Path
    tokenizer: Tokenizer
    train_file: Path
    all_file: Path
    train: Int64[np.ndarray, "train"]
    valid: Int64[np.ndarray, "valid"]
    test: Int64[np.ndarray, "test"]
    train_answers: Bool[np.ndarray, "train"]
    valid_answers: Bool[np.ndarray, "valid"]
    test_answers: Bool[np.ndarray, "test"]
    other: Int64[np.ndarray, "other"]
    base: "StudyText | None" = None


@dataclass(frozen=True)
class _Encoded:
    """The first tokens of lines, which of them belong to answers, and where all lines end, even beyond these tokens."""

    ids: Int64[np.ndarray, "tokens"]
    is_answer: Bool[np.ndarray, "tokens"]
    line_ends: Int64[np.ndarray, "lines"]


def open_text(files: Files, setting: Setting, folder: Path) -> StudyText:
    """Split a text 90/5/5 by blocks of up to 200 lines, in a seeded order, and train the tokenizer unless it exists.

    The tokenizer is the pretrained model's, or is trained on the base model's text, or else on the training text.

    Args:
        files: the text, and what else the setting needs.
        setting: the vocabulary's size and the number of training tokens.
        folder: for the parts of the text and the tokenizer.

    Raises:
        UsageError: the setting needs pairs, and a line of the text is not one; or the model is not a folder.
    """
    if files.model and not files.model.is_dir():
        hint = "save the model and its tokenizer with save_pretrained; the tokenizer of a GGUF file cannot encode text"
        raise UsageError(f"{files.model} is not the folder of a model", hint)
    if setting.prompts:
        _check_pairs(files.text)
    if setting.base_steps:
        assert files.other is not None
        first = replace(setting, base_steps=0, train_tokens=setting.base_tokens, prompts=False)
        base = open_text(Files(files.other), first, folder / "base")
        text = _split(files.text, setting, folder, base.model)
        return replace(text, other=base.test, base=base)
    text = _split(files.text, setting, folder, files.model)
    if files.other is None:
        return text
    lines = files.other.read_text("utf-8").splitlines()[: setting.eval_tokens]
    return replace(text, other=_encode(text.tokenizer, lines, setting.eval_tokens).ids)


def _split(file: Path, setting: Setting, folder: Path, model: Path | None) -> StudyText:
    folder.mkdir(parents=True, exist_ok=True)
    lines = file.read_text("utf-8").splitlines()
    size = max(1, min(_BLOCK_LINES, len(lines) // 40))
    blocks = [lines[start : start + size] for start in range(0, len(lines), size)]
    random.Random(0).shuffle(blocks)
    held_out = max(1, len(blocks) // 20)
    parts = {"valid": blocks[:held_out], "test": blocks[held_out : 2 * held_out], "all": blocks[2 * held_out :]}
    texts = {name: [line for block in chosen for line in block] for name, chosen in parts.items()}
    # A token of English has about four bytes; the tokens that are too many are cut off below.
    texts["train"] = _first_bytes(texts["all"], 5 * setting.train_tokens)
    files = {name: folder / f"{name}.txt" for name in texts}
    for name, path in files.items():
        _write(path, texts[name], setting)
    if model is None:
        model = folder / "study.model"
        if not model.exists():
            sample = folder / "tokenizer.txt"
            _write(sample, _first_bytes(texts["all"], 5 * (setting.tokenizer_tokens or setting.train_tokens)), setting)
            train_sentencepiece([sample], model, setting.vocab)
    tokenizer = load_tokenizer(model)
    limits = {"train": setting.train_tokens, "valid": setting.eval_tokens, "test": setting.eval_tokens}
    train, valid, test = (_encode(tokenizer, texts[name], limits[name], setting.prompts) for name in limits)
    kept = int(np.searchsorted(train.line_ends, setting.train_tokens)) + 1
    _write(files["train"], texts["train"][:kept], setting)
    return StudyText(
        model, tokenizer, files["train"], files["all"], train.ids, valid.ids, test.ids,
        train.is_answer, valid.is_answer, test.is_answer, other=np.empty(0, np.int64),
    )  # fmt: skip


def _check_pairs(file: Path) -> None:
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        if "\t" not in line:
            raise UsageError(
                f"{file}, line {number}: there is no tab between a prompt and an answer",
                "write PROMPT<TAB>ANSWER on each line, or use a setting without prompts, such as continued-small",
            )


def _write(path: Path, lines: list[str], setting: Setting) -> None:
    """Write lines, and pairs as plain text: tokenizers and banks are made from these files."""
    text = "".join(f"{line}\n" for line in lines)
    path.write_text(text.replace("\t", " ") if setting.prompts else text, "utf-8")


def _first_bytes(lines: list[str], limit: int) -> list[str]:
    total, kept = 0, []
    for line in lines:
        total += len(line.encode()) + 1
        kept.append(line)
        if total >= limit:
            break
    return kept


def _encode(tokenizer: Tokenizer, lines: list[str], limit: int, prompts: bool = False) -> _Encoded:
    """The first tokens of lines, each with an end of line. No token is part of both a prompt and an answer."""
    parts = [part for line in lines for part in _prompt_and_answer(line)] if prompts else lines
    in_line = 2 if prompts else 1
    ids, ends = tokenizer.encode(parts)
    is_answer = np.repeat(np.arange(len(parts)) % in_line == in_line - 1, np.diff(ends, prepend=0))
    try:
        end_of_line = tokenizer.vocab.find("</s>")
    except TokenNotFoundError:
        end_of_line = int(tokenizer.encode(["\n"])[0][-1])
    ends = ends[in_line - 1 :: in_line]
    ids, is_answer = np.insert(ids.astype(np.int64), ends, end_of_line), np.insert(is_answer, ends, True)
    return _Encoded(ids[:limit], is_answer[:limit], ends + np.arange(1, len(lines) + 1))


def _prompt_and_answer(line: str) -> tuple[str, str]:
    prompt, _, answer = line.partition("\t")
    return prompt, f" {answer}"
