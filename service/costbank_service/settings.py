"""Settings of the service, from arguments and environment variables."""

from ipaddress import ip_address
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from costbank.bank import default_store
from costbank.config.descriptions import accepted_values, value_text
from costbank.errors import UsageError
from costbank.machine import usable_cores

__all__ = ["Settings", "check_exposure", "load_settings"]


class Settings(BaseSettings):
    """Settings of the service; each is also read from the environment, such as `COSTBANK_MAX_K`."""

    model_config = SettingsConfigDict(env_prefix="COSTBANK_", env_ignore_empty=True, frozen=True)

    store: Path = Field(default_factory=default_store, description="directory of banks")
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8137, ge=0, le=65_535, description="port to listen on; 0 picks a free one")
    max_k: int = Field(default=1_000, ge=1, description="largest number of neighbors per request")
    max_memory_mb: int = Field(default=4_096, ge=1, description="memory for tables and indexes, in megabytes")
    search_threads: int = Field(
        default_factory=usable_cores, ge=1,
        description="number of concurrent searches beyond the neighbor tables",
    )  # fmt: skip
    search_queue: int = Field(
        default=64, ge=0, description="number of such searches that can wait; further requests get 503"
    )
    api_key: SecretStr | None = Field(
        default=None, min_length=1, description="key that /v1 requires, as `Authorization: Bearer …`"
    )
    no_auth: bool = Field(default=False, description="listen on addresses other than loopback without a key")

    @field_validator("api_key")
    @classmethod
    def _can_be_sent(cls, key: SecretStr | None) -> SecretStr | None:
        text = key.get_secret_value() if key else ""
        if text != text.strip(" \t") or any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
            # HTTP strips spaces around the value of a header and forbids control characters in it.
            raise ValueError("a key with control characters or surrounding spaces cannot be sent in a header")
        return key


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
    if settings.api_key is None and not settings.no_auth and not _is_loopback(settings.host):
        raise UsageError(
            f"{settings.host} can be reached from other machines, and no key is set",
            "set $COSTBANK_API_KEY, or give --no-auth if anyone may read these banks",
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
