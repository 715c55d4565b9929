"""All export formats."""

from costbank.bank.manifest import NEIGHBORS, TOKENS, VECTORS
from costbank.export.arrays import costs_size, rows_size, write_costs, write_rows
from costbank.export.base import ExportFormat
from costbank.export.listing import LISTING_SUFFIX
from costbank.export.parquet import parquet_size, write_parquet
from costbank.export.projector import projector_size, write_projector
from costbank.export.static_models import model_size, write_model2vec, write_sentence_transformers
from costbank.export.word2vec import binary_size, text_size, write_binary, write_text

__all__ = ["FORMATS"]

_ALL = (
    ExportFormat(
        "sentence-transformers",
        "sentence-transformers",
        write_sentence_transformers,
        model_size,
        folder=True,
        with_tokenizer=True,
        library="tokenizers",
    ),
    ExportFormat(
        "model2vec", "model2vec", write_model2vec, model_size, folder=True, with_tokenizer=True, library="tokenizers"
    ),
    ExportFormat(
        "word2vec-text", "gensim and most tools", write_text, text_size, companion=LISTING_SUFFIX, whole=False
    ),
    ExportFormat("word2vec-binary", "gensim", write_binary, binary_size, companion=LISTING_SUFFIX, whole=False),
    ExportFormat("npy", "NumPy", write_rows, rows_size, companion=LISTING_SUFFIX),
    ExportFormat("tensorboard", "TensorBoard's projector", write_projector, projector_size, folder=True, whole=False),
    ExportFormat(
        "parquet",
        "Embedding Atlas, pyarrow",
        write_parquet,
        parquet_size,
        reads=(VECTORS, TOKENS, NEIGHBORS),
        library="pyarrow",
    ),
    ExportFormat("costs-npy", "NumPy", write_costs, costs_size, reads=(VECTORS,), of_pairs=True),
)
FORMATS: dict[str, ExportFormat] = {each.name: each for each in _ALL}
"""By name, in the order in which they are listed to people."""
