"""The one object that says what to build, how it is read, and what of it names a bank."""

from costbank.config.identity import semantic_config, settings
from costbank.config.listing import Setting, list_settings, settings_table
from costbank.config.loading import load_config
from costbank.config.models import (
    SOURCE_SECTIONS,
    BuildConfig,
    CooccurrenceConfig,
    CorpusConfig,
    EngineConfig,
    Execution,
    LMHeadConfig,
    NeighborsConfig,
    TransferConfig,
    VectorFileConfig,
    VectorsConfig,
    VocabularyConfig,
    Word2VecConfig,
    default_cache,
)
from costbank.config.problems import like_settings, settings_called

__all__ = [
    "SOURCE_SECTIONS",
    "BuildConfig",
    "CooccurrenceConfig",
    "CorpusConfig",
    "EngineConfig",
    "Execution",
    "LMHeadConfig",
    "NeighborsConfig",
    "Setting",
    "TransferConfig",
    "VectorFileConfig",
    "VectorsConfig",
    "VocabularyConfig",
    "Word2VecConfig",
    "default_cache",
    "like_settings",
    "list_settings",
    "load_config",
    "semantic_config",
    "settings",
    "settings_called",
    "settings_table",
]
