"""The log of the service: lines of text, or one JSON object per line."""

import logging
from typing import Any

import orjson

from costbank_service.settings import Settings

__all__ = ["ACCESS_LOG", "JSONFormatter", "log_config"]

ACCESS_LOG = "costbank.access"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


class JSONFormatter(logging.Formatter):
    """A log record as a JSON object: time, level, logger, message, the exception, and what `extra` has."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}",
            "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage(),
        }  # fmt: skip
        entry |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(_clean(entry), default=str).decode("utf-8")


def log_config(settings: Settings) -> dict[str, Any]:
    """The configuration of logging, for `logging.config.dictConfig`: everything goes to stderr."""
    formatter = {"()": JSONFormatter} if settings.log_format == "json" else {"format": "%(levelname)s: %(message)s"}
    access = "INFO" if settings.access_log else "WARNING"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": formatter},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}},
        "loggers": {
            "costbank": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
            "uvicorn": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
            ACCESS_LOG: {"handlers": ["stderr"], "level": access, "propagate": False},
        },
    }


def _clean(value: Any) -> Any:
    """Texts without lone surrogates, which JSON cannot contain."""
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    return value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value
