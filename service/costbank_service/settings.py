"""Settings of the service, from arguments and environment variables."""

from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from costbank.bank import default_store
from costbank.config.descriptions import accepted_values, value_text
from costbank.errors import UsageError
from costbank.machine import usable_cores

__all__ = ["Settings", "check_exposure", "load_settings", "problem_with_key"]


class Settings(BaseSettings):
    """Settings of the service; each is also read from the environment, such as `COSTBANK_MAX_K`."""

    model_config = SettingsConfigDict(env_prefix="COSTBANK_", env_ignore_empty=True, frozen=True)

    store: Path = Field(default_factory=default_store, description="directory of banks")
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8137, ge=0, le=65_535, description="port to listen on; 0 picks a free one")
    workers: int = Field(default=1, ge=1, le=256, description="number of processes that share the port")
    max_k: int = Field(default=1_000, ge=1, description="largest number of neighbors per request")
    max_ids: int = Field(default=1_000, ge=1, description="largest number of tokens or vectors per request")
    max_cells: int = Field(
        default=1_000_000, ge=1, description="largest number of costs, elements of vectors or neighbors per answer"
    )
    max_body_kb: int = Field(default=8_192, ge=1, description="largest body of a request, in kilobytes; beyond it 413")
    max_requests: int = Field(
        default=256, ge=1, description="number of requests to /v1 that run at a time; further ones get 503"
    )
    max_memory_mb: int = Field(default=4_096, ge=1, description="memory for tables and indexes, in megabytes")
    search_threads: int = Field(
        default_factory=usable_cores, ge=1,
        description="number of concurrent searches beyond the neighbor tables",
    )  # fmt: skip
    search_queue: int = Field(
        default=64, ge=0, description="number of such searches that can wait; further requests get 503"
    )
    refresh_ms: int = Field(
        default=500, ge=0,
        description="milliseconds until new banks, changed files and changed keys are seen; with 0, at once",
    )  # fmt: skip
    timeout_s: float = Field(
        default=30.0, gt=0, description="seconds until a request without an answer gets 503, or 408 if its body is late"
    )
    keep_alive_s: int = Field(default=5, ge=0, description="seconds until an idle connection is closed")
    drain_s: int = Field(default=10, ge=0, description="seconds that running requests have when the service stops")
    api_key: SecretStr | None = Field(
        default=None, min_length=1, description="key that /v1 requires, as `Authorization: Bearer …`"
    )
    api_keys_file: Path | None = Field(
        default=None, description="file of further keys, one per line; it is read again when it changes"
    )
    no_auth: bool = Field(default=False, description="listen on addresses other than loopback without a key")
    allowed_origins: str = Field(
        default="", description="origins, separated by commas, whose pages may read answers (CORS); `*` is any"
    )
    log_format: Literal["text", "json"] = Field(default="text", description="form of the log on stderr")
    access_log: bool = Field(default=False, description="log every request")
    problem_base: str = Field(
        default="", description="URL of the folder of pages of errors, for the `type` of problems; empty: about:blank"
    )

    @field_validator("api_key")
    @classmethod
    def _can_be_sent(cls, key: SecretStr | None) -> SecretStr | None:
        if key and (problem := problem_with_key(key.get_secret_value())):
            raise ValueError(problem)
        return key


def problem_with_key(key: str) -> str:
    """Why no request could send this key; empty if one can."""
    if key != key.strip(" \t") or any(ord(letter) < 32 or ord(letter) == 127 for letter in key):
        # HTTP strips spaces around the value of a header and forbids control characters in it.
        return "a key with control characters or surrounding spaces cannot be sent in a header"
    return ""


def load_settings(**arguments: Any) -> Settings:
    """Settings from arguments, and from the environment for the rest.

    Raises:
        UsageError: a value is invalid; the message names its variable.
    """
    try:
        return Settings(**arguments)
    except ValidationError as error:
        problems = "; ".join(map(_explained, error.errors()))
        raise UsageError(problems, "set a valid value, or unset it for the default") from None


def check_exposure(settings: Settings) -> None:
    """Refuse to listen on addresses other than loopback without a key, unless `no_auth` is set.

    Raises:
        UsageError: the address is not loopback, and neither a key nor `no_auth` is set.
    """
    has_key = settings.api_key is not None or settings.api_keys_file is not None
    if not has_key and not settings.no_auth and not _is_loopback(settings.host):
        raise UsageError(
            f"{settings.host} can be reached from other machines, and no key is set",
            "set $COSTBANK_API_KEY or $COSTBANK_API_KEYS_FILE, or give --no-auth if anyone may read these banks",
        )


def _explained(problem: Any) -> str:
    """The message for an invalid setting. It never repeats a value that may be secret."""
    name = str(problem["loc"][0])
    variable, field = f"$COSTBANK_{name.upper()}", Settings.model_fields[name]
    if problem["type"] == "value_error":  # raised by a validator above
        return f"{variable}: {problem['ctx']['error']}"
    value = "" if name == "api_key" else f" is {value_text(problem['input'])}, and it"
    return f"{variable}{value} takes {accepted_values(field)}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
