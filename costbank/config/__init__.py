"""Build configs from files, command lines and Python, with errors that name each setting; and lists of settings."""

from typing import TYPE_CHECKING

from costbank.lazy import lazy_names
from costbank.settings import BuildConfig, Execution, NeighborsConfig, StorageConfig, default_cache
from costbank.sources.cooccurrence.settings import CooccurrenceBuild, CooccurrenceConfig
from costbank.sources.corpus_settings import CorpusBuild, CorpusConfig, EngineConfig
from costbank.sources.lm_head.settings import LMHeadBuild, LMHeadConfig
from costbank.sources.registry import SOURCE_SECTIONS
from costbank.sources.spelling.settings import SpellingBuild, SpellingConfig
from costbank.sources.transfer.settings import TransferBuild, TransferConfig
from costbank.sources.vectors.settings import VectorsBuild, VectorsConfig
from costbank.sources.word2vec.settings import Word2VecBuild, Word2VecConfig

if TYPE_CHECKING:
    from costbank.config.building import build_config
    from costbank.config.identity import semantic_config, semantic_settings, settings
    from costbank.config.listing import Setting, list_settings, settings_table
    from costbank.config.loading import load_config
    from costbank.config.problems import like_settings, settings_called

__all__ = [
    "SOURCE_SECTIONS",
    "BuildConfig",
    "CooccurrenceBuild",
    "CooccurrenceConfig",
    "CorpusBuild",
    "CorpusConfig",
    "EngineConfig",
    "Execution",
    "LMHeadBuild",
    "LMHeadConfig",
    "NeighborsConfig",
    "Setting",
    "SpellingBuild",
    "SpellingConfig",
    "StorageConfig",
    "TransferBuild",
    "TransferConfig",
    "VectorsBuild",
    "VectorsConfig",
    "Word2VecBuild",
    "Word2VecConfig",
    "build_config",
    "default_cache",
    "like_settings",
    "list_settings",
    "load_config",
    "semantic_config",
    "semantic_settings",
    "settings",
    "settings_called",
    "settings_table",
]

if not TYPE_CHECKING:  # A type checker would accept any name.
    __getattr__, __dir__ = lazy_names(
        __name__,
        listing="Setting list_settings settings_table",
        building="build_config",
        problems="like_settings settings_called",
        loading="load_config",
        identity="semantic_config semantic_settings settings",
    )
