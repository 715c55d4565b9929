"""Tokenizers of many file formats behind one interface: the bytes of each id, and the ids of a text.

Importing this package imports none of them; each name below is imported when it is first used.
"""

from typing import TYPE_CHECKING

from costbank.lazy import lazy_names

if TYPE_CHECKING:
    from costbank.tokenizers.base import SamplingTokenizer, Tokenizer
    from costbank.tokenizers.bytepiece import BytePieceTokenizer
    from costbank.tokenizers.gguf import GGUFTokenizer
    from costbank.tokenizers.huggingface import HuggingFaceTokenizer
    from costbank.tokenizers.kinds import TokenizerKind
    from costbank.tokenizers.opening import find_tokenizer, load_tokenizer
    from costbank.tokenizers.placeholders import placeholder_counts, placeholder_pattern
    from costbank.tokenizers.plain import PlainTokenizer
    from costbank.tokenizers.sentencepiece import SentencePieceTokenizer
    from costbank.tokenizers.tekken import TekkenTokenizer
    from costbank.tokenizers.tiktoken import TiktokenTokenizer
    from costbank.tokenizers.vocab_merges import VocabMergesTokenizer
    from costbank.tokenizers.wordpiece import WordPieceTokenizer

__all__ = [
    "BytePieceTokenizer",
    "GGUFTokenizer",
    "HuggingFaceTokenizer",
    "PlainTokenizer",
    "SamplingTokenizer",
    "SentencePieceTokenizer",
    "TekkenTokenizer",
    "TiktokenTokenizer",
    "Tokenizer",
    "TokenizerKind",
    "VocabMergesTokenizer",
    "WordPieceTokenizer",
    "find_tokenizer",
    "load_tokenizer",
    "placeholder_counts",
    "placeholder_pattern",
]

if not TYPE_CHECKING:  # A type checker would accept any name.
    __getattr__, __dir__ = lazy_names(
        __name__,
        bytepiece="BytePieceTokenizer",
        gguf="GGUFTokenizer",
        huggingface="HuggingFaceTokenizer",
        plain="PlainTokenizer",
        base="SamplingTokenizer Tokenizer",
        sentencepiece="SentencePieceTokenizer",
        tekken="TekkenTokenizer",
        tiktoken="TiktokenTokenizer",
        kinds="TokenizerKind",
        vocab_merges="VocabMergesTokenizer",
        wordpiece="WordPieceTokenizer",
        opening="find_tokenizer load_tokenizer",
        placeholders="placeholder_counts placeholder_pattern",
    )
