"""The names of tokenizer formats."""

from typing import Literal

__all__ = ["TokenizerKind"]

TokenizerKind = Literal[
    "auto",
    "sentencepiece",
    "huggingface",
    "bytepiece",
    "tiktoken",
    "tekken",
    "vocab-merges",
    "wordpiece",
    "gguf",
    "list",
]
