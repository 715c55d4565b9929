"""What a config asks for: its settings by path, and what of them a bank's id covers."""

from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from costbank.config.models import BuildConfig, CorpusConfig, Execution, foreign_sections

__all__ = ["semantic_config", "settings"]


def semantic_config(config: BuildConfig) -> dict[str, Any]:
    """What was asked for, without paths and machine settings: the part of a config that a bank's id covers.

    Sections of other sources are left out, so that a source that is added later changes no id, and so are settings that
    the rest of the config leaves without an effect.
    """
    foreign = foreign_sections(config.source)
    asked = {name: value for name, value in _without_execution(config).items() if name not in foreign}
    if config.neighbors.method == "exact":
        del asked["neighbors"]["min_recall"]
    if config.source == "transfer" and config.transfer.method != "omp":
        del asked["transfer"]["atoms"]
    if config.source == "lm-head" and not config.lm_head.keep_placeholders:
        del asked["lm_head"]["keep_placeholders"]
    if "corpus" in asked:
        asked["corpus"] = _corpus_asked(config.corpus)
        asked.pop("engine")
    if config.source == "word2vec" and not config.word2vec.hs:
        del asked["word2vec"]["hs"]
    return asked


def _corpus_asked(corpus: CorpusConfig) -> dict[str, Any]:
    """The rule of documents, and what else was asked for. What was not leaves a bank the id that it had before."""
    asked = _without_execution(corpus)
    if corpus.sampling is None:
        del asked["sampling_seed"]
    for name in ("text_field", "separator", "sampling"):
        if asked[name] == CorpusConfig.model_fields[name].default:
            del asked[name]
    return asked


def settings(model: type[BaseModel] = BuildConfig, prefix: str = "") -> dict[str, FieldInfo]:
    """Every setting by its path, in the order of the config."""
    found = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= settings(field.annotation, f"{prefix}{name}.")
        else:
            found[prefix + name] = field
    return found


def _without_execution(model: BaseModel) -> dict[str, Any]:
    kept = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if Execution not in field.metadata:
            kept[name] = _without_execution(value) if isinstance(value, BaseModel) else value
    return kept
