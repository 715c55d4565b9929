"""Content negotiation, and arrays as JSON or as NumPy's `.npy`."""

from io import BytesIO
from typing import Any

import numpy as np
from fastapi import Request, Response
from starlette.exceptions import HTTPException

from costbank_service.answers import json_response

__all__ = ["JSON", "NPY", "NPY_CONTENT", "array_response", "chosen", "preferred"]

JSON, NPY = "application/json", "application/x-npy"
NPY_CONTENT = {NPY: {"schema": {"type": "string", "format": "binary"}}}
"""The other form of an answer, for the OpenAPI document."""


def preferred(accept: str | None, offered: tuple[str, ...]) -> str | None:
    """The offered type with the highest quality in an Accept header (RFC 9110, 12.5.1); None if none is acceptable.

    The most specific range that matches a type gives its quality. Of equal qualities, the first offered wins.
    """
    ranges = [_range(part) for part in (accept or "*/*").split(",") if part.strip()]
    qualities = {}
    for kind in offered:
        main = kind.partition("/")[0]
        specific = {kind: 2, f"{main}/*": 1, "*/*": 0}
        matching = [(specific[name], quality) for name, quality in ranges if name in specific]
        qualities[kind] = max(matching)[1] if matching else 0.0
    best = max(offered, key=lambda kind: qualities[kind])
    return best if qualities[best] > 0 else None


def array_response(request: Request, document: dict[str, Any], array: np.ndarray) -> Response:
    """The document as JSON, or the array alone as `.npy`, by the request's Accept headers.

    Raises:
        HTTPException: 406, neither is acceptable.
    """
    kind = chosen(request)
    if kind == JSON:
        response = json_response(document)
    else:
        file = BytesIO()
        np.save(file, array, allow_pickle=False)
        response = Response(file.getvalue(), media_type=NPY)
    response.headers["Vary"] = "Accept"
    return response


def chosen(request: Request) -> str:
    """JSON or `.npy`, by the request's Accept headers; checked before long work.

    Raises:
        HTTPException: 406, neither is acceptable.
    """
    accept = ",".join(request.headers.getlist("accept")) or None
    kind = preferred(accept, (JSON, NPY))
    if kind is None:
        raise HTTPException(406, f"this route answers with {JSON} or {NPY}", {"Vary": "Accept"})
    return kind


def _range(part: str) -> tuple[str, float]:
    name, *parameters = (piece.strip() for piece in part.split(";"))
    quality = 1.0
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "q":
            try:
                quality = min(1.0, max(0.0, float(value.strip())))
            except ValueError:
                quality = 0.0
    return name.lower(), quality if quality == quality else 0.0
