"""The names of a bank's files, and the form of a bank's id and of the names next to it."""

__all__ = [
    "CARD",
    "ID_DIGITS",
    "ID_PATTERN",
    "INDEX",
    "LATEST",
    "MANIFEST",
    "MAP",
    "NEIGHBORS",
    "REMOVED_PREFIX",
    "ROWS",
    "TENSOR_FILES",
    "TOKENS",
    "VECTORS",
]

ID_DIGITS = 16
ID_PATTERN = rf"[0-9a-f]{{{ID_DIGITS}}}"
LATEST = "latest"
REMOVED_PREFIX = ".removed-"
MANIFEST = "manifest.json"
VECTORS = "vectors.safetensors"
TOKENS = "tokens.safetensors"
NEIGHBORS = "neighbors.safetensors"
INDEX = "index.faiss"
ROWS = "rows.safetensors"
MAP = "map.safetensors"
CARD = "README.md"
TENSOR_FILES = (VECTORS, TOKENS, NEIGHBORS)
