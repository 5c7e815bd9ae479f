"""The OpenAPI document describes every route and every error, as the routes answer."""

from typing import Any

import pytest

from tests.support.answers import SHAPES
from tests.support.service import Service

TITLES = {"openai": "Error", "cohere": "CohereError", "tei": "TeiError", "ollama": "OllamaError"}


@pytest.fixture(scope="module")
def document(api: Service) -> dict[str, Any]:
    """The document as clients fetch it."""
    found: dict[str, Any] = api.http.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def dialect_of_path(path: str) -> str:
    if path in ("/v1/rerank", "/v2/rerank", "/v1/embed", "/v2/embed"):
        return "cohere"
    if path in ("/api/embed", "/api/embeddings", "/api/tags", "/api/show", "/api/version"):
        return "ollama"
    of_tei = ("/", "/embed", "/embed_sparse", "/rerank", "/predict", "/similarity", "/tokenize", "/info", "/health")
    return "tei" if path in of_tei else "openai"


def test_every_error_has_the_schema_of_its_dialect(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        title = TITLES[dialect_of_path(path)]
        for status in ("401", "403", "404", "409", "413", "429", "500", "503", "504", "507"):
            schema = operation["responses"][status]["content"]["application/json"]["schema"]
            assert schema == {"$ref": f"#/components/schemas/{title}"}, (method, path, status)


def test_input_that_cannot_be_used_is_mostly_422_for_tei_and_400_for_the_others(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        is_tei = dialect_of_path(path) == "tei"
        found = {status for status in ("400", "422", "424") if status in operation["responses"]}
        assert found == ({"400", "422", "424"} if is_tei else {"400"}), (method, path)


@pytest.mark.parametrize("dialect", TITLES)
def test_the_schemas_have_the_fields_of_the_answers(document: dict[str, Any], dialect: str) -> None:
    schema = document["components"]["schemas"][TITLES[dialect]]
    shape = SHAPES[dialect]
    assert set(schema["properties"]) == set(schema["required"]) == set(shape)
    if dialect == "openai":
        inner = schema["properties"]["error"]
        assert set(inner["properties"]) == set(inner["required"]) == shape["error"]


def test_fastapis_own_error_shape_is_gone(document: dict[str, Any]) -> None:
    assert not {"HTTPValidationError", "ValidationError"} & document["components"]["schemas"].keys()
    assert "HTTPValidationError" not in str(document["paths"])


def test_every_operation_and_every_answer_is_described(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        assert operation["description"].endswith((".", "`")), (method, path)
        for status, answer in operation["responses"].items():
            assert answer["description"], (method, path, status)


def test_every_parameter_without_an_obvious_name_is_described(document: dict[str, Any]) -> None:
    obvious = {
        "limit",
        "status",
        "model",
        "order",
        "purpose",
        "format",
        "device",
        "truncate",
        "metadata",
        "prompt_name",
    }
    for method, path, operation in operations(document):
        for parameter in operation.get("parameters", ()):
            name = parameter["name"]
            described = parameter.get("description") or parameter["schema"].get("description")
            assert described or parameter["in"] == "path" or name in obvious, (method, path, name)


def test_every_operation_has_an_id_and_a_tag_of_its_group(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    assert {tag for _, _, operation in operations(document) for tag in operation["tags"]} == {
        "OpenAI", "OpenAI files and batches", "Cohere, Jina", "Text Embeddings Inference", "Jobs", "Cache", "Keys",
        "Syncs",
        "Health", "Ollama", "embed-rerank", "vLLM",
    }  # fmt: skip


def test_the_page_is_no_part_of_the_document(document: dict[str, Any]) -> None:
    assert "get" not in document["paths"]["/"]
    assert "/page/{name}" not in document["paths"]


def test_bodies_that_fastapi_does_not_parse_are_described(document: dict[str, Any]) -> None:
    bodies = {
        (path, kind)
        for method, path, operation in operations(document)
        for kind in operation.get("requestBody", {}).get("content", {})
        if kind != "application/json"
    }
    tables = {"application/x-ndjson", "application/vnd.apache.parquet"}
    assert {(path, kind) for path in ("/v1/jobs", "/v1/jobs/estimate") for kind in (*tables, "text/csv")} <= bodies
    assert {("/v1/cache/vectors", kind) for kind in tables} <= bodies
    assert ("/v1/files", "multipart/form-data") in bodies


def test_the_document_is_made_once(api: Service) -> None:
    assert api.app.openapi() is api.app.openapi()


def test_the_documentation_page_needs_no_other_server(api: Service) -> None:
    page = api.http.get("/docs").text
    assert "https://" not in page
    assert api.http.get("/static-offline-docs/swagger-ui.css").status_code == 200
    assert api.http.get("/redoc").status_code == 404
