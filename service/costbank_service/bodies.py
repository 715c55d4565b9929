"""Bodies of requests: JSON that fits a schema, read and checked in a thread."""

from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from costbank.errors import UsageError

__all__ = ["body_of", "documented_body"]

_Model = TypeVar("_Model", bound=BaseModel)
_MOST_PROBLEMS = 3


async def body_of(request: Request, model: type[_Model]) -> _Model:
    """The body of a request.

    Raises:
        UsageError: the body is not JSON.
        HTTPException: 415 if the Content-Type is not JSON, 422 if keys or values do not fit.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, f"the Content-Type is {kind!r}" if kind else "the Content-Type is missing")
    body = await request.body()
    try:
        return await run_in_threadpool(model.model_validate_json, body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        if problems[0]["type"] == "json_invalid":
            raise UsageError(f"the body is not JSON: {problems[0]['msg']}", "send a JSON object") from None
        shown = [_explained(problem) for problem in problems[:_MOST_PROBLEMS]]
        more = f"; and {len(problems) - len(shown):,} more" if len(problems) > len(shown) else ""
        raise HTTPException(422, "; ".join(shown) + more) from None


def documented_body(model: type[BaseModel], *examples: Any) -> dict[str, Any]:
    """The request body of an OpenAPI operation; the document has the schema under the model's name."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    named = {f"example {number}": {"value": example} for number, example in enumerate(examples, 1)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema, "examples": named}}}}


def _explained(problem: Any) -> str:
    place = ".".join(map(str, problem["loc"]))
    return f"{place}: {problem['msg']}" if place else problem["msg"]
