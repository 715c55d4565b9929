"""Pretrained models on disk: which tensor holds a row for each token, and those rows a few at a time.

    open_checkpoint(path) ─▶ Checkpoint ─ choose_head ─▶ Head ─▶ Matrix.rows(start, stop)

Reads Hugging Face folders (safetensors, or PyTorch's files without anything but weights), single files of these, and
GGUF. Never loads a model, and needs torch for PyTorch's own files only.
"""

from costbank.checkpoints.base import Checkpoint, Matrix, joined_rows, same_bytes
from costbank.checkpoints.gguf import GGUFFile, is_gguf
from costbank.checkpoints.heads import Head, choose_head
from costbank.checkpoints.opening import find_gguf, open_checkpoint

__all__ = [
    "Checkpoint",
    "GGUFFile",
    "Head",
    "Matrix",
    "choose_head",
    "find_gguf",
    "is_gguf",
    "joined_rows",
    "open_checkpoint",
    "same_bytes",
]
