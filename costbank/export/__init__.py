"""Export banks to files of other tools: word2vec, NumPy, TensorBoard, Parquet and static embedding models."""

from costbank.export.formats import FORMATS
from costbank.export.publish import ExportedFiles, export_bank
from costbank.export.words import bytes_of_word, token_words

__all__ = ["FORMATS", "ExportedFiles", "bytes_of_word", "export_bank", "token_words"]
