"""The page of the Python interface: every public name of the rooms that users import, for mkdocstrings to fill in."""

from importlib import import_module

__all__ = ["ROOMS", "page"]

ROOMS = {
    "costbank": "Build and open banks.",
    "costbank.loss": "Losses for training, and the costs that they take.",
    "costbank.trainers.huggingface": "The losses in Hugging Face's Trainer and in TRL.",
    "costbank.trainers.lightning": "The losses in Lightning.",
    "costbank.trainers.tokenizer": "A tokenizer compared with a bank's.",
    "costbank.trainers.heads": "A model's head.",
    "costbank.export": "Banks as files of other tools.",
    "costbank.analysis.health": "The quality of a bank's vectors.",
    "costbank.analysis.evaluation": "Costs compared with people's judgements.",
}
"""Modules whose `__all__` is public, and what each is for."""

_ABOVE = """# Python

Shapes are part of the annotations: `Float[Tensor, "*tokens vocab"]` is an array of floats with any number of dimensions
of tokens, followed by one of the vocabulary. The exceptions are those of [costbank.errors](errors.md).
"""


def page() -> str:
    """A directive for every public name of every room."""
    return _ABOVE + "".join(_room(module, about) for module, about in ROOMS.items())


def _room(module: str, about: str) -> str:
    names = "".join(f"\n::: {module}.{name}\n" for name in import_module(module).__all__)
    return f"\n## {module}\n\n{about}\n{names}"
