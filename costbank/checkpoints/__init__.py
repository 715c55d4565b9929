"""Pretrained models on disk: which tensor has a row for each token, and its rows in blocks.

    open_checkpoint(path) ─▶ Checkpoint ─ choose_head ─▶ HeadChoice ─▶ Matrix.rows(start, stop)

Reads Hugging Face folders (safetensors, or PyTorch files that contain only weights), single files of these formats, and
GGUF. Never loads a model. Needs torch for PyTorch files only.
"""

from costbank.checkpoints.base import Checkpoint, Matrix, TensorInfo
from costbank.checkpoints.gguf import GGUFFile, is_gguf
from costbank.checkpoints.heads import HeadChoice, choose_head
from costbank.checkpoints.opening import find_gguf, open_checkpoint

__all__ = [
    "Checkpoint",
    "GGUFFile",
    "HeadChoice",
    "Matrix",
    "TensorInfo",
    "choose_head",
    "find_gguf",
    "is_gguf",
    "open_checkpoint",
]
