"""The text of a study: split by blocks of lines, and encoded by a tokenizer that saw the training text alone.

A pretrained model's text is encoded by its own tokenizer.
"""

import random
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from benchmarks.study.design import Setting
from costbank.errors import TokenNotFoundError
from costbank.tokenizers import Tokenizer, load_tokenizer
from costbank.tokenizers.train import train_sentencepiece

__all__ = ["Files", "StudyText", "open_text"]

_BLOCK_LINES = 200


@dataclass(frozen=True)
class Files:
    """The files of a study, on this machine.

    Attributes:
        text: text with a document per line.
        other: another text: that of the base model, if there is one; forgetting is measured on it.
        model: the folder or GGUF file of a pretrained model.
    """

    text: Path
    other: Path | None = None
    model: Path | None = None


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
    other: Int64[np.ndarray, "other"]
    base: "StudyText | None" = None


def open_text(files: Files, setting: Setting, folder: Path) -> StudyText:
    """Split a text 90/5/5 by blocks of up to 200 lines, in a seeded order, and train the tokenizer unless it exists.

    The tokenizer is the pretrained model's, or is trained on the base model's text, or else on the training text.

    Args:
        files: the text, and what else the setting needs.
        setting: the vocabulary's size and the number of training tokens.
        folder: for the parts of the text and the tokenizer.
    """
    if setting.base_steps:
        assert files.other is not None
        first = replace(setting, base_steps=0, train_tokens=setting.base_tokens)
        base = open_text(Files(files.other), first, folder / "base")
        text = _split(files.text, setting, folder, base.model)
        return replace(text, other=base.test, base=base)
    text = _split(files.text, setting, folder, files.model)
    if files.other is None:
        return text
    lines = files.other.read_text("utf-8").splitlines()[: setting.eval_tokens]
    return replace(text, other=_encode(text.tokenizer, lines, setting.eval_tokens))


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
        path.write_text("\n".join(texts[name]) + "\n", "utf-8")
    if model is None:
        model = folder / "study.model"
        if not model.exists():
            train_sentencepiece([files["train"]], model, setting.vocab)
    tokenizer = load_tokenizer(model)
    limits = {"train": setting.train_tokens, "valid": setting.eval_tokens, "test": setting.eval_tokens}
    ids = {name: _encode(tokenizer, texts[name], limit) for name, limit in limits.items()}
    kept = _lines_of(tokenizer, texts["train"], setting.train_tokens)
    files["train"].write_text("\n".join(texts["train"][:kept]) + "\n", "utf-8")
    none = np.empty(0, np.int64)
    return StudyText(
        model, tokenizer, files["train"], files["all"], ids["train"], ids["valid"], ids["test"], other=none
    )


def _first_bytes(lines: list[str], limit: int) -> list[str]:
    total, kept = 0, []
    for line in lines:
        total += len(line.encode()) + 1
        kept.append(line)
        if total >= limit:
            break
    return kept


def _encode(tokenizer: Tokenizer, lines: list[str], limit: int) -> Int64[np.ndarray, "tokens"]:
    ids, ends = tokenizer.encode(lines)
    try:
        end_of_line = tokenizer.vocab.find("</s>")
    except TokenNotFoundError:
        end_of_line = int(tokenizer.encode(["\n"])[0][-1])
    return np.insert(ids.astype(np.int64), ends, end_of_line)[:limit]


def _lines_of(tokenizer: Tokenizer, lines: list[str], limit: int) -> int:
    """How many lines have this many tokens, with one more for each end of a line."""
    ends = tokenizer.encode(lines)[1] + np.arange(1, len(lines) + 1)
    return int(np.searchsorted(ends, limit)) + 1
