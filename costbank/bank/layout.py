"""The names of a bank's files, and the form of a bank's id."""

__all__ = [
    "CARD",
    "ID_DIGITS",
    "ID_PATTERN",
    "INDEX",
    "MANIFEST",
    "MAP",
    "NEIGHBORS",
    "ROWS",
    "TENSOR_FILES",
    "TOKENS",
    "VECTORS",
]

ID_DIGITS = 16
ID_PATTERN = rf"[0-9a-f]{{{ID_DIGITS}}}"
MANIFEST = "manifest.json"
VECTORS = "vectors.safetensors"
TOKENS = "tokens.safetensors"
NEIGHBORS = "neighbors.safetensors"
INDEX = "index.faiss"
ROWS = "rows.safetensors"
MAP = "map.safetensors"
CARD = "README.md"
TENSOR_FILES = (VECTORS, TOKENS, NEIGHBORS)
