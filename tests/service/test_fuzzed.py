"""Requests made from the OpenAPI document, valid and invalid, get answers that it declares."""

from collections.abc import Iterator

import pytest
import schemathesis
from costbank_service import Settings, serving
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.service.banks import write_mapped_bank

ALWAYS_VALID = [
    *(f"GET {path}" for path in ("/livez", "/readyz", "/metrics", "/v1/banks", "/v1/banks/{ref}")),
    *(f"GET /v1/banks/{{ref}}/{name}" for name in ("map", "examples")),
]
"""Operations without parameters but the reference, which may be any text."""
DYNAMIC = [
    "GET /v1/compare", *(f"GET /v1/banks/{{ref}}/{name}" for name in ("nearest", "tokens", "targets")),
    "POST /v1/banks/{ref}/nearest",
]  # fmt: skip
"""Operations that refuse values which their schema permits: two parameters at once, or numbers beyond a setting."""
LABELS = [
    *ALWAYS_VALID, *DYNAMIC,
    *(f"GET /v1/banks/{{ref}}/{name}" for name in ("tokens/{token_id}", "costs", "vectors", "files/{file}")),
    "POST /v1/banks/{ref}/costs",
]  # fmt: skip
FILE = "GET /v1/banks/{ref}/files/{file}"
"""Any text fits its schema, so no request can break it."""
POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
RUNS = [(label, POSITIVE) for label in LABELS] + [
    (label, NEGATIVE) for label in LABELS if label not in (*ALWAYS_VALID, FILE)
]


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict]:
    store = tmp_path_factory.mktemp("fuzzed")
    write_mapped_bank(store / "demo")
    write_mapped_bank(store / "other")
    with serving(Settings(store=store, port=0)) as url:
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        yield {operation.label: operation for operation in (result.ok() for result in schema.get_all_operations())}


def test_every_operation_is_here(operations: dict):
    assert sorted(operations) == sorted(LABELS)


@pytest.mark.parametrize(("label", "mode"), RUNS)
def test_any_request_gets_a_declared_answer(operations: dict, label: str, mode: GenerationMode):
    operation = operations[label]
    excluded = [positive_data_acceptance] if label in DYNAMIC else []

    @settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case) -> None:
        if mode is POSITIVE and "ref" in case.path_parameters:
            case.path_parameters["ref"] = "demo"
        case.call_and_validate(excluded_checks=excluded)

    ask()
