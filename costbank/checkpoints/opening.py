"""Opening a model folder, an index or a file of weights: which file holds each tensor, without loading any."""

import json
import re
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from costbank.checkpoints.base import Checkpoint, Matrix, joined_rows, same_bytes
from costbank.checkpoints.candidates import holds_no_rows
from costbank.checkpoints.gguf import GGUFFile, is_gguf
from costbank.checkpoints.pickled import pickled_facts, pickled_tensors, torch_matrix
from costbank.checkpoints.safetensors import safetensors_facts, safetensors_matrix
from costbank.errors import CheckpointError, InputNotFoundError
from costbank.files import check_readable

__all__ = ["find_gguf", "open_checkpoint"]

_SERIES = re.compile(r"(.*)-\d+-of-(\d{1,6})\.(safetensors|bin)")
_ADAPTER_CONFIG = "adapter_config.json"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a model folder, an index, or a file of weights. Only names and headers are read.

    In a folder the index decides; without one, all files of weights of the first kind that is found: safetensors,
    PyTorch's, GGUF.

    Raises:
        InputNotFoundError: there is no such path, or no weights in the folder.
        CheckpointError: an index or a file is broken.
    """
    if not path.exists():
        raise InputNotFoundError(f"the model {path} does not exist", "check the path; nothing is downloaded")
    if path.is_dir():
        return _open_folder(path)
    check_readable(path, "model file")
    if path.name.endswith(".index.json"):
        return _open_index(path)
    if is_gguf(path):
        return _open_gguf(path)
    return _open_files(path, [path])


def find_gguf(path: Path) -> Path | None:
    """The GGUF file that a path means: itself, or the first one in a folder that has no other weights."""
    if path.is_file():
        return path if is_gguf(path) else None
    if any(path.glob("*.safetensors")) or any(path.glob("*.bin")):
        return None
    return min(path.glob("*.gguf"), default=None)


def _open_folder(folder: Path) -> Checkpoint:
    for ending in ("safetensors", "bin"):
        # Other precisions have an index of their own, as model.fp16.safetensors.index.json.
        if index := min(folder.glob(f"*.{ending}.index.json"), key=lambda file: (len(file.name), file), default=None):
            return _open_index(index)
        # Training states, adapters and other precisions lie beside the weights under names of their own.
        found = sorted(folder.glob(f"*.{ending}"))
        usual = [file for file in found if file.name.startswith(("model", "pytorch_model"))]
        if usual or found:
            return _open_files(folder, usual or found)
    if gguf := find_gguf(folder):
        return _open_gguf(gguf)
    if other := sorted(file for file in folder.iterdir() if file.suffix in _PICKLED):
        return _open_files(folder, other)
    raise InputNotFoundError(
        f"there are no weights in {folder}", "looked for *.safetensors, *.bin, *.pt, *.pth, *.ckpt and *.gguf"
    )


def _open_index(index: Path) -> Checkpoint:
    content = _read_json(index)
    places = content.get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
        raise CheckpointError(f"{index} has no weight_map", "download it again")
    if outside := next((file for file in places.values() if Path(file).name != file), None):
        raise CheckpointError(f"{index} names {outside!r}, which is not beside it", "check where it comes from")
    names = {name: index.parent / file for name, file in places.items()}

    def matrix(name: str) -> Matrix:
        if not names[name].is_file():
            raise CheckpointError(
                f"{index} says that tensor {name!r} is in {names[name].name}, which is missing", "download that file"
            )
        return _matrix_in(names[name], name)

    facts = cache(_facts_in)

    def describe(name: str) -> tuple[str, tuple[int, ...]] | None:
        return facts(names[name]).get(name) if names[name].is_file() else None

    folder = index.parent
    return Checkpoint(folder, names, matrix, describe, _config(folder), adapter=_config(folder, _ADAPTER_CONFIG))


def _open_files(path: Path, files: list[Path]) -> Checkpoint:
    places: dict[str, list[Path]] = {}
    facts = {file: _facts_in(file) for file in files}
    for file in files:
        for name in facts[file]:
            places.setdefault(name, []).append(file)

    @cache
    def parts_of(name: str) -> list[Matrix]:
        """A tensor's parts, one in a file; one of them where all files hold the same."""
        parts = [_matrix_in(file, name) for file in places[name]]
        return parts[:1] if all(same_bytes(parts[0], other) for other in parts[1:]) else parts

    def matrix(name: str) -> Matrix:
        parts = parts_of(name)
        if len(parts) > 1 and not _one_series(places[name], files):
            shown = " and ".join(file.name for file in places[name][:2])
            raise CheckpointError(f"tensor {name!r} is in {shown}", "name the file that is meant with --model")
        if len({(part.dtype, part.shape[1]) for part in parts}) > 1:
            raise CheckpointError(
                f"tensor {name!r} has another type or width in {parts[1].file.name} than in {parts[0].file.name}",
                "the files do not belong together",
            )
        return joined_rows(parts)

    def describe(name: str) -> tuple[str, tuple[int, ...]]:
        dtype, shape = facts[places[name][0]][name]
        if len(shape) != 2 or len(places[name]) == 1:
            return dtype, shape
        if holds_no_rows(dtype) or not prod(shape):
            return dtype, (sum(facts[file][name][1][0] for file in places[name]), shape[1])
        return dtype, (sum(part.shape[0] for part in parts_of(name)), shape[1])

    folder = path if path.is_dir() else path.parent
    names = {name: found[0] for name, found in places.items()}
    adapter = _config(folder, _ADAPTER_CONFIG)
    return Checkpoint(path, names, matrix, describe, _config(folder), _missing(files), adapter)


def _open_gguf(path: Path) -> Checkpoint:
    model = GGUFFile.open(path)
    names = {name: header.path for name, (header, _) in model.tensors.items()}
    return Checkpoint(path, names, model.matrix, model.describe, gguf=True)


def _missing(files: list[Path]) -> tuple[str, ...]:
    """What is not there of the series `…-00001-of-00004` that files belong to."""
    wanted = {
        f"{match[1]}-{number:0{len(match[2])}d}-of-{match[2]}.{match[3]}"
        for match in (_SERIES.fullmatch(file.name) for file in files)
        if match
        for number in range(1, int(match[2]) + 1)
    }
    return tuple(sorted(wanted - {file.name for file in files}))


def _one_series(holding: list[Path], files: list[Path]) -> bool:
    """Whether every shard of one series `…-00001-of-00004` holds the tensor: parts of its rows, in their order."""
    matches = [_SERIES.fullmatch(file.name) for file in files]
    return holding == files and all(matches) and len({match[1] for match in matches if match}) == 1


def _facts_in(file: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The element type and the shape of every tensor of a file."""
    return pickled_facts(file) if _is_pickled(file) else safetensors_facts(file)


def _matrix_in(file: Path, name: str) -> Matrix:
    if not _is_pickled(file):
        return safetensors_matrix(file, name)
    tensors = pickled_tensors(file)
    if name not in tensors:
        raise CheckpointError(f"{file} holds no tensor {name!r}", "the index and the file do not belong together")
    return torch_matrix(file, name, tensors[name])


def _is_pickled(file: Path) -> bool:
    """By its name, else by its content: what torch.save writes is a zip archive."""
    if file.suffix in _PICKLED:
        return True
    with file.open("rb") as opened:
        return opened.read(2) == b"PK"


def _config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    path = folder / name
    return _read_json(path) if path.is_file() else {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}", "download it again") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object", "download it again")
    return content
