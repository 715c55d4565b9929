"""Whether the head is found in every class of the installed transformers: `python -m tests.sweep.heads [CLASS …]`.

Each model is built from its default config without memory (PyTorch's meta device), once without the tensors that are
tied, which `save_pretrained` omits too, and once with all. The chosen tensor must be the weight of the model's output
embeddings, or else of its input embeddings; otherwise there must be a clear error.
"""

import sys
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

from costbank.checkpoints import Checkpoint, Matrix, TensorInfo, choose_head
from costbank.errors import CheckpointError

__all__ = ["ENDINGS", "Result", "classes", "look"]

ENDINGS = ("ForCausalLM", "ForConditionalGeneration", "ForMaskedLM", "LMHeadModel", "WithLMHead", "ForTextToText")


@dataclass(frozen=True)
class Result:
    """The result of one class: `right`, `wrong`, `refused` or `no head` (the class names neither embedding)."""

    verdict: str
    detail: str


def classes() -> list[str]:
    import transformers

    names = dir(transformers)
    return [name for name in names if name.endswith(ENDINGS) and not name.startswith(("Auto", "TF", "Flax"))]


def look(name: str, tied: bool, tokens: bool) -> Result:
    """Build one class and choose its head.

    Args:
        name: the class.
        tied: whether tensors that the class ties are left out.
        tokens: whether the number of tokens is known.
    """
    model = _model(name)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    left_out = model.all_tied_weights_keys if tied else {}
    shapes = {key: tuple(value.shape) for key, value in parameters.items() if key not in left_out}
    right = _names_of(model, parameters)
    rows = parameters[right[0]].shape[0] if right else None

    def taken(key: str) -> Matrix:
        def read(*_: object) -> NoReturn:
            raise AssertionError(f"{key} is read, and there is nothing to read")

        if len(shapes[key]) != 2:
            raise CheckpointError(f"{key} has the shape {shapes[key]}")
        return Matrix(key, Path("none"), "F32", (shapes[key][0], shapes[key][1]), read, read)

    names = dict.fromkeys(shapes, Path("none"))
    checkpoint = Checkpoint(Path(name), names, taken, lambda key: TensorInfo("F32", shapes[key]))
    try:
        head = choose_head(checkpoint, None, rows - 3 if rows and tokens else None)
    except CheckpointError as error:
        return Result("refused", str(error))
    if not right:
        return Result("no head", head.matrix.name)
    return Result("right" if head.matrix.name in right else "wrong", f"{head.matrix.name}, not {right[0]}")


@lru_cache(maxsize=1)
def _model(name: str):
    import torch
    import transformers

    with torch.device("meta"):
        return getattr(transformers, name)(getattr(transformers, name).config_class())


def _names_of(model, parameters: dict) -> list[str]:
    for way in (model.get_output_embeddings, model.get_input_embeddings):
        try:
            weight = getattr(way(), "weight", None)
        except (AttributeError, NotImplementedError):
            continue
        if names := [name for name, value in parameters.items() if value is weight]:
            return names
    return []


def main(chosen: list[str]) -> None:
    counts: Counter[str] = Counter()
    for name in chosen or classes():
        for tied in (True, False):
            try:
                result = look(name, tied, True)
            except Exception as error:  # the class cannot be built from its own default config
                result = Result(
                    "not built", f"{type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else ''}"
                )
            counts[result.verdict] += 1
            if result.verdict != "right":
                print(f"{name}{'' if tied else ', untied'}: {result.verdict}: {result.detail}")
    print(dict(counts))


if __name__ == "__main__":
    main(sys.argv[1:])
