"""All export formats."""

from costbank.bank.layout import NEIGHBORS, TOKENS, VECTORS
from costbank.export.arrays import estimate_cost_bytes, estimate_row_bytes, write_costs, write_rows
from costbank.export.base import ExportFormat
from costbank.export.parquet import estimate_parquet_bytes, write_parquet
from costbank.export.projector import estimate_projector_bytes, write_projector
from costbank.export.static_models import estimate_model_bytes, write_model2vec, write_sentence_transformers
from costbank.export.vocab_listing import LISTING_SUFFIX
from costbank.export.word2vec import estimate_binary_bytes, estimate_text_bytes, write_binary, write_text

__all__ = ["FORMATS"]

_ALL = (
    ExportFormat(
        "sentence-transformers",
        write_sentence_transformers,
        estimate_model_bytes,
        is_folder=True,
        has_tokenizer=True,
        library="tokenizers",
    ),
    ExportFormat(
        "model2vec", write_model2vec, estimate_model_bytes, is_folder=True, has_tokenizer=True, library="tokenizers"
    ),
    ExportFormat(
        "word2vec-text", write_text, estimate_text_bytes, companion_suffix=LISTING_SUFFIX, has_all_tokens=False
    ),
    ExportFormat(
        "word2vec-binary", write_binary, estimate_binary_bytes, companion_suffix=LISTING_SUFFIX, has_all_tokens=False
    ),
    ExportFormat("npy", write_rows, estimate_row_bytes, companion_suffix=LISTING_SUFFIX),
    ExportFormat("tensorboard", write_projector, estimate_projector_bytes, is_folder=True, has_all_tokens=False),
    ExportFormat(
        "parquet",
        write_parquet,
        estimate_parquet_bytes,
        bank_files=(VECTORS, TOKENS, NEIGHBORS),
        library="pyarrow",
    ),
    ExportFormat("costs-npy", write_costs, estimate_cost_bytes, is_cost_matrix=True, bank_files=(VECTORS,)),
)
FORMATS: dict[str, ExportFormat] = {each.name: each for each in _ALL}
"""The formats by name, in the order of the help text."""
