"""Open a model folder, an index or a file of weights: find the file of each tensor, without loading any tensor."""

import json
import re
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from costbank.checkpoints.base import Checkpoint, Matrix, TensorInfo, join_rows, same_bytes
from costbank.checkpoints.candidates import has_no_float_rows
from costbank.checkpoints.gguf import GGUFFile, is_gguf
from costbank.checkpoints.pickled import pickled_infos, pickled_tensors, torch_matrix
from costbank.checkpoints.safetensors import safetensors_infos, safetensors_matrix
from costbank.errors import CheckpointError, InputNotFoundError
from costbank.files import check_readable
from costbank.hub import WEIGHT_FILES, download_hint, local_path

__all__ = ["find_gguf", "open_checkpoint"]

_SERIES = re.compile(r"(.*)-\d+-of-(\d{1,6})\.(safetensors|bin)")
_ADAPTER_CONFIG = "adapter_config.json"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a model folder, an index, a file of weights, or `org/name[@revision]` in the local cache of Hugging Face.

    Only names and headers are read.

    In a folder, an index names the files. Without an index, the files of one format are read: safetensors if there are
    any, else PyTorch, else GGUF.

    Raises:
        InputNotFoundError: the path does not exist, or the folder has no weights.
        CheckpointError: an index or a file is broken.
    """
    path = local_path(path, "model", WEIGHT_FILES)
    if not path.exists():
        raise InputNotFoundError(f"the model {path} does not exist", "check the path: models are never downloaded")
    if path.is_dir():
        return _open_folder(path)
    check_readable(path, "model file")
    if path.name.endswith(".index.json"):
        return _open_index(path)
    if is_gguf(path):
        return _open_gguf(path)
    return _open_files(path, [path])


def find_gguf(path: Path) -> Path | None:
    """The path itself if it is a GGUF file, or the first GGUF file in a folder without other weights; else None."""
    if path.is_file():
        return path if is_gguf(path) else None
    if any(path.glob("*.safetensors")) or any(path.glob("*.bin")):
        return None
    return min(path.glob("*.gguf"), default=None)


def _open_folder(folder: Path) -> Checkpoint:
    for ending in ("safetensors", "bin"):
        # Other precisions have indices of their own, such as model.fp16.safetensors.index.json.
        if index := min(folder.glob(f"*.{ending}.index.json"), key=lambda file: (len(file.name), file), default=None):
            return _open_index(index)
        # The folder may also contain training states, adapters and other precisions, under other names.
        files = sorted(folder.glob(f"*.{ending}"))
        usual = [file for file in files if file.name.startswith(("model", "pytorch_model"))]
        if usual or files:
            return _open_files(folder, usual or files)
    if gguf := find_gguf(folder):
        return _open_gguf(gguf)
    if other := sorted(file for file in folder.iterdir() if file.suffix in _PICKLED):
        return _open_files(folder, other)
    raise InputNotFoundError(
        f"there are no weights in {folder}",
        "give a folder or file with weights: *.safetensors, *.bin, *.pt, *.pth, *.ckpt or *.gguf",
    )


def _open_index(index: Path) -> Checkpoint:
    content = _read_json(index)
    weight_map = content.get("weight_map")
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(file, str) for file in weight_map.values())
    ):
        raise CheckpointError(f"{index} has no weight_map", "download it again")
    if outside := next((file for file in weight_map.values() if Path(file).name != file), None):
        raise CheckpointError(
            f"{index} names {outside!r}, which is not in the same folder", "use an index from a source you trust"
        )
    files = {name: index.parent / file for name, file in weight_map.items()}

    def matrix(name: str) -> Matrix:
        if not files[name].is_file():
            raise CheckpointError(
                f"{index} says that tensor {name!r} is in {files[name].name}, which is missing",
                download_hint(files[name]),
            )
        return _matrix_in(files[name], name)

    infos = cache(_infos_in)

    def describe(name: str) -> TensorInfo | None:
        return infos(files[name]).get(name) if files[name].is_file() else None

    folder = index.parent
    adapter_config = _config(folder, _ADAPTER_CONFIG)
    return Checkpoint(folder, files, matrix, describe, _config(folder), adapter_config=adapter_config)


def _open_files(path: Path, files: list[Path]) -> Checkpoint:
    infos = {file: _infos_in(file) for file in files}
    files_with: dict[str, list[Path]] = {}
    for file in files:
        for name in infos[file]:
            files_with.setdefault(name, []).append(file)

    @cache
    def parts_of(name: str) -> list[Matrix]:
        """The parts of a tensor, one in each file; only the first if all files contain the same."""
        parts = [_matrix_in(file, name) for file in files_with[name]]
        return parts[:1] if all(same_bytes(parts[0], other) for other in parts[1:]) else parts

    def matrix(name: str) -> Matrix:
        parts = parts_of(name)
        if len(parts) > 1 and not _is_one_series(files_with[name], files):
            shown = " and ".join(file.name for file in files_with[name][:2])
            raise CheckpointError(
                f"tensor {name!r} is in {shown}, with different content", "choose one of these files with --model"
            )
        if len({(part.dtype, part.shape[1]) for part in parts}) > 1:
            raise CheckpointError(
                f"tensor {name!r} has another type or width in {parts[1].file.name} than in {parts[0].file.name}",
                "give files of the same model",
            )
        return join_rows(parts)

    def describe(name: str) -> TensorInfo:
        dtype, shape = infos[files_with[name][0]][name]
        if len(shape) != 2 or len(files_with[name]) == 1:
            return TensorInfo(dtype, shape)
        if has_no_float_rows(dtype) or not prod(shape):
            return TensorInfo(dtype, (sum(infos[file][name].shape[0] for file in files_with[name]), shape[1]))
        return TensorInfo(dtype, (sum(part.shape[0] for part in parts_of(name)), shape[1]))

    folder = path if path.is_dir() else path.parent
    first_files = {name: files[0] for name, files in files_with.items()}
    adapter_config = _config(folder, _ADAPTER_CONFIG)
    return Checkpoint(path, first_files, matrix, describe, _config(folder), _missing_files(files), adapter_config)


def _open_gguf(path: Path) -> Checkpoint:
    model = GGUFFile.open(path)
    files = {name: header.path for name, (header, _) in model.tensors.items()}
    return Checkpoint(path, files, model.matrix, model.describe, is_gguf=True)


def _missing_files(files: list[Path]) -> tuple[str, ...]:
    """The missing files of each series `…-00001-of-00004` that one of the files belongs to."""
    complete = {
        f"{match[1]}-{number:0{len(match[2])}d}-of-{match[2]}.{match[3]}"
        for match in (_SERIES.fullmatch(file.name) for file in files)
        if match
        for number in range(1, int(match[2]) + 1)
    }
    return tuple(sorted(complete - {file.name for file in files}))


def _is_one_series(with_tensor: list[Path], files: list[Path]) -> bool:
    """Whether the files are one series `…-00001-of-00004`, and each has a part of the tensor's rows."""
    matches = [_SERIES.fullmatch(file.name) for file in files]
    return with_tensor == files and all(matches) and len({match[1] for match in matches if match}) == 1


def _infos_in(file: Path) -> dict[str, TensorInfo]:
    """The element type and the shape of each tensor of a file."""
    return pickled_infos(file) if _is_pickled(file) else safetensors_infos(file)


def _matrix_in(file: Path, name: str) -> Matrix:
    if not _is_pickled(file):
        return safetensors_matrix(file, name)
    tensors = pickled_tensors(file)
    if name not in tensors:
        raise CheckpointError(f"{file} has no tensor {name!r}", "download the index and this file again")
    return torch_matrix(file, name, tensors[name])


def _is_pickled(file: Path) -> bool:
    """Whether a file is pickled, as its suffix shows, or its content: torch.save writes a zip archive."""
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
        raise CheckpointError(f"{path} is not a JSON object", "download it again")
    return content
