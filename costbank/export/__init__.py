"""Banks written as files that other tools open: word2vec, NumPy, TensorBoard, Parquet, static models."""

from costbank.export.formats import FORMATS
from costbank.export.publish import ExportedFiles, export_bank
from costbank.export.words import bytes_of_word, words

__all__ = ["FORMATS", "ExportedFiles", "bytes_of_word", "export_bank", "words"]
