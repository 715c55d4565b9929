"""The reference of the Python API: a directive of mkdocstrings for each public name that users import."""

from importlib import import_module

__all__ = ["ROOMS", "page"]

ROOMS = {
    "costbank": "Build and open banks.",
    "costbank.bank.removal": "Remove and rename banks.",
    "costbank.remote": "Banks on other machines: open, pull and push them.",
    "costbank.loss": "Losses and costs for training.",
    "costbank.trainers.huggingface": "The losses in Hugging Face's Trainer and TRL.",
    "costbank.trainers.model_loss": "The losses as `model.loss_function` of transformers.",
    "costbank.trainers.model_loss_callback": "The callback that sets it and checks it.",
    "costbank.trainers.lightning": "The losses in Lightning.",
    "costbank.trainers.tokenizer": "Check that a tokenizer is the bank's.",
    "costbank.trainers.heads": "Find a model's head.",
    "costbank.export": "Write banks as files of other tools.",
    "costbank.analysis.health": "Report the quality of a bank's vectors.",
    "costbank.analysis.evaluation": "Compare costs with human judgments, and banks with each other.",
    "costbank.analysis.word_tests": "Test a bank on lists of words, as `costbank eval` does.",
    "costbank.analysis.comparison": "Compare two banks, as `costbank compare` does.",
    "costbank.analysis.report": "Write a report of a bank as an HTML file, as `costbank report` does.",
    "costbank.analysis.layout": "Make a two-dimensional map of the tokens, as `costbank layout` does.",
    "costbank.bank.maps": "Add a map to a bank that exists.",
}
"""The modules with a public `__all__`, and the purpose of each."""

_ABOVE = """# Python

Annotations contain shapes: `Float[Tensor, "*tokens vocab"]` is a tensor of floats with any number of token dimensions,
followed by one of the size of the vocabulary. [Errors](errors.md) lists the exceptions.
"""


def page() -> str:
    """A directive for every public name of every module."""
    return _ABOVE + "".join(_room(module, about) for module, about in ROOMS.items())


def _room(module: str, about: str) -> str:
    names = "".join(f"\n::: {module}.{name}\n" for name in import_module(module).__all__)
    return f"\n## {module}\n\n{about}\n{names}"
