"""The manifest of a bank: its content, the origin of that content, and the sha256 of every file."""

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from costbank.bank.layout import CARD, ID_DIGITS, ID_PATTERN, INDEX, MANIFEST, ROWS, TENSOR_FILES
from costbank.errors import BankNotFoundError, CorruptBankError
from costbank.files import FileDigest

__all__ = [
    "FORMAT",
    "REPAIR",
    "BankFacts",
    "IndexFacts",
    "Manifest",
    "MapFacts",
    "NeighborFacts",
    "TokenizerFacts",
    "VectorFacts",
    "bank_id",
    "canonical",
    "check_sizes",
    "load_manifest",
    "read_manifest",
    "write_manifest",
]

FORMAT = 1
_LONE_SURROGATES = "backslashreplace"
"""Writes lone surrogates, which in Python stand for bytes of a path that are not UTF-8, as JSON escapes."""
REPAIR = "remove this bank with `costbank rm NAME@ID`, then build or copy it again"


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


def _checked(digest: FileDigest) -> FileDigest:
    if digest.size < 0 or not re.fullmatch(r"[0-9a-f]{64}", digest.sha256):
        raise ValueError("not a size and a sha256 in hexadecimal")
    return digest


class TokenizerFacts(_Facts):
    """The tokenizer whose ids are the bank's rows; `fingerprint` is that of `costbank.vocab.Vocab`."""

    kind: str
    file: str
    sha256: str
    fingerprint: str


class VectorFacts(_Facts):
    """Shape and element type of the rows."""

    vocab: int = Field(ge=1)
    dim: int = Field(ge=1)
    dtype: Literal["F32", "F16", "BF16"]


class NeighborFacts(_Facts):
    """The neighbor table, and the share of the exact nearest tokens that are in it.

    An entry counts for the recall if its cost is at most `recall_tolerance` above that of the last exact one.
    """

    k: int = Field(ge=0, description="the number of columns")
    exact: bool = Field(description="whether it is the brute-force table")
    recall: float = Field(description="the share of the `recall_at` nearest that are in the table; 1 if it is exact")
    method: str = Field(default="exact", description="how candidates were proposed")
    recall_at: int = 10
    recall_of_all: float = Field(default=1.0, description="`recall` over all k columns")
    recall_tolerance: float = Field(default=0.0, ge=0)
    candidates: int = Field(default=0, description="candidates per row that exact costs ranked; 0 if it is exact")
    sampled: int = Field(default=0, description="the number of rows that the recall was measured on; 0 if it is exact")


class IndexFacts(_Facts):
    """The FAISS index and its number of rows."""

    kind: str = Field(description="`flat` (the rows), `sq8` (8 bits per element) or `none`")
    rows: int


class MapFacts(_Facts):
    """How the map of the tokens was made, and how far it can be trusted."""

    seed: int = Field(ge=0)
    method: str = Field(description="the library that placed the tokens, and its version")
    neighbors: int = Field(description="columns of the neighbor table that the map was made from")
    kept: float = Field(description="the mean share of the `kept_of` nearest tokens that are as near on the map")
    kept_of: int
    sampled: int = Field(description="the number of tokens that `kept` was measured on")


class BankFacts(_Facts):
    """What the builder of a bank records about the build and the bank's content.

    Attributes:
        costbank: the version of this library.
        created: the time, in UTC, ISO 8601.
        reproducible: whether the same inputs and config give the same bytes.
        source: the source that made the vectors.
        config: the part of the config that the bank's id covers.
        run: the whole config, with paths and settings of the machine.
        facts: counts and measurements of the source.
        inputs: the files that the vectors depend on: name, size in bytes and sha256.
        libraries: versions of the distributions that affect the result.
        seconds: the duration of each step.
        tokenizer: the tokenizer whose ids are the rows.
        vectors: shape and element type.
        status: the number of ids with each status.
        neighbors: the neighbor table.
        index: the FAISS index.
        map: the map of the tokens; None if there is none, or if nothing is recorded about it.
    """

    costbank: str
    created: str
    reproducible: bool
    source: str
    config: dict[str, Any]
    run: dict[str, Any]
    facts: dict[str, Any]
    inputs: list[dict[str, Any]]
    libraries: dict[str, str]
    seconds: dict[str, float]
    tokenizer: TokenizerFacts
    vectors: VectorFacts
    status: dict[str, int]
    neighbors: NeighborFacts
    index: IndexFacts
    map: MapFacts | None = None

    def as_json(self) -> dict[str, Any]:
        """The attributes that were set, as JSON values."""
        return self.model_dump(mode="json", exclude_unset=True)


class Manifest(BankFacts):
    """The content of a manifest.json. Unknown keys are ignored."""

    format: Literal[1]
    id: str = Field(pattern=r"^[0-9a-f]{16}$")
    files: dict[str, Annotated[FileDigest, AfterValidator(_checked)]]


def canonical(value: Any) -> bytes:
    """The canonical JSON of a value, from which digests are computed: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode(
        errors=_LONE_SURROGATES
    )


def bank_id(fingerprint: str, config: dict[str, Any], files: dict[str, Any]) -> str:
    """The id of a bank: the first 16 hex digits of a sha256 over its config and its content; rule 14 of the format."""
    content = {
        "format": FORMAT,
        "tokenizer": fingerprint,
        "config": config,
        "files": {name: files[name]["sha256"] for name in (*TENSOR_FILES, ROWS) if name in files or name != ROWS},
    }
    return hashlib.sha256(canonical(content)).hexdigest()[:ID_DIGITS]


def write_manifest(facts: dict[str, Any]) -> bytes:
    """The bytes of manifest.json: the facts, and a digest of them as the last key, so that any change is detected."""
    digest = hashlib.sha256(canonical(facts)).hexdigest()
    return _text({**facts, "digest": digest})


def load_manifest(directory: Path) -> Manifest:
    """The checked manifest of the bank in a directory.

    Raises:
        BankNotFoundError: the directory has no manifest.
        CorruptBankError: the manifest was changed, is missing from a directory named by an id, or has another format.
    """
    path = directory / MANIFEST
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if directory.is_dir() and re.fullmatch(ID_PATTERN, directory.name):
            raise CorruptBankError(f"{path} is missing", REPAIR) from None
        raise BankNotFoundError(
            f"there is no bank at {directory}", "give a directory that contains manifest.json"
        ) from None
    except OSError as error:
        raise CorruptBankError(f"{path} cannot be read: {error.strerror}", REPAIR) from None
    return read_manifest(data, str(path))


def check_sizes(directory: Path, manifest: Manifest) -> None:
    """Check that every file of the bank in a directory exists and has the size in the manifest.

    Raises:
        CorruptBankError: a file is missing or has another size; the message names the first one.
    """
    for name, facts in manifest.files.items():
        path = directory / name
        try:
            size = path.stat().st_size
        except OSError:
            raise CorruptBankError(f"{path} is missing", REPAIR) from None
        if size != facts.size:
            raise CorruptBankError(f"{path} has {size:,} bytes instead of {facts.size:,}", REPAIR)


def read_manifest(data: bytes, file: str) -> Manifest:
    """Check and read the bytes of manifest.json; `file` is the name for messages.

    Raises:
        CorruptBankError: a byte was changed, or the content is not a manifest of format 1.
    """
    try:
        facts = json.loads(data)
        digest = facts.pop("digest")
        intact = digest == hashlib.sha256(canonical(facts)).hexdigest() and _text({**facts, "digest": digest}) == data
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise CorruptBankError(f"{file} is not a bank manifest", REPAIR) from None
    if not intact:
        raise CorruptBankError(f"{file} was changed after it was written", REPAIR)
    if facts.get("format") != FORMAT:
        raise CorruptBankError(
            f"{file} has format {facts.get('format')}, but this version of costbank reads format {FORMAT}",
            "upgrade costbank to read it",
        )
    try:
        manifest = Manifest.model_validate(facts)
        expected = bank_id(manifest.tokenizer.fingerprint, facts["config"], facts["files"])
    except (ValidationError, KeyError) as error:
        raise CorruptBankError(f"{file} does not have the keys and values of format 1: {error}", REPAIR) from None
    required = {*TENSOR_FILES, CARD} | ({INDEX} if manifest.index.kind != "none" else set())
    if missing := required - set(manifest.files):
        raise CorruptBankError(f"{file} does not list {', '.join(sorted(missing))}", REPAIR)
    if manifest.id != expected:
        raise CorruptBankError(f"{file} has the id {manifest.id}, but its content has the id {expected}", REPAIR)
    return manifest


def _text(facts: dict[str, Any]) -> bytes:
    return (json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(errors=_LONE_SURROGATES)
