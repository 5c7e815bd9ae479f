"""The server keeps to its OpenAPI document: no request causes a 5xx or an answer that is not described there."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from semel.api.app import create_app
from semel.settings import load_settings
from tests.support.processes import Processes


@schemathesis.serializer("application/x-ndjson", "application/vnd.apache.parquet", "application/x-parquet", "text/csv")
def as_it_is(_: Any, value: Any) -> bytes:
    """The generated value of such a body, as bytes."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


DOCUMENT = create_app(load_settings()).openapi()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = {found.ok().label: found.ok() for found in SCHEMA.get_all_operations()}
CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.mark.parametrize("label", OPERATIONS)
def test_every_route_answers_as_described(semel: Processes, label: str) -> None:
    @settings(
        max_examples=40,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=OPERATIONS[label].as_strategy())
    def check(case: Any) -> None:
        response = case.call(base_url=semel.url, timeout=120)  # the example names a model that must first be loaded
        case.validate_response(response, checks=CHECKS)

    check()


def test_every_route_has_a_summary_and_every_body_an_example() -> None:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description"), f"{method} {path} says nothing"
            for kind, body in operation.get("requestBody", {}).get("content", {}).items():
                assert _has_example(kind, body), f"{method} {path}: {kind} has no example"


def _has_example(kind: str, body: dict[str, Any]) -> bool:
    schema = body.get("schema", {})
    if reference := schema.get("$ref"):
        schema = DOCUMENT["components"]["schemas"][reference.rpartition("/")[2]]
    is_file = schema.get("format") == "binary" or kind == "multipart/form-data"
    return is_file or "example" in body or "example" in schema
