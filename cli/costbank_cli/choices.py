"""Copies of the names that help texts and completion list, so that these need not import the library.

Tests check that they equal the library's.
"""

__all__ = ["CACHE_KINDS", "ENGINES", "EXPORT_FORMATS", "ON_ERROR", "SOURCES"]

SOURCES = {
    "word2vec": ("corpus", "engine", "word2vec"),
    "cooccurrence": ("corpus", "engine", "cooccurrence"),
    "lm-head": ("lm_head",),
    "spelling": ("spelling",),
    "vectors": ("vectors",),
    "transfer": ("transfer",),
}
"""Each source, with its sections of the settings."""

EXPORT_FORMATS = (
    "sentence-transformers", "model2vec", "word2vec-text", "word2vec-binary", "npy", "tensorboard", "parquet",
    "costs-npy",
)  # fmt: skip
ENGINES = ("local", "ray")
ON_ERROR = ("refuse", "skip")
CACHE_KINDS = ("encoded-text", "pair-counts", "file-digests", "banks", "unfinished")
