"""/v1/cache in this process: contents, prune, verify, import."""

import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import delete, update

from semel.cache.schema import vectors as rows
from semel.tasks.jobs.schema import chunks, jobs
from semel.values.vectors import Vectors
from tests.support.answers import message_of
from tests.support.service import Service

NDJSON, PARQUET = "application/x-ndjson", "application/vnd.apache.parquet"


@pytest.fixture(autouse=True)
def empty(api: Service) -> None:
    """Each test begins with an empty cache, and no job that needs a vector."""
    with api.services.stores.db.write() as conn:
        for table in (rows, chunks, jobs):
            conn.execute(delete(table))
    api.services.watch.contents.forget()


def embed(api: Service, *texts: str, **options: str) -> Vectors:
    answer = api.http.post("/v1/embeddings", json={"input": list(texts), **options})
    return np.array([item["embedding"] for item in answer.json()["data"]], np.float32)


def contents(api: Service) -> Any:
    """What the cache holds now, not some seconds ago."""
    api.services.watch.contents.forget()
    return api.http.get("/v1/cache").json()


# Contents


def test_an_empty_cache_has_no_spaces(api: Service) -> None:
    found = contents(api)
    assert (found["object"], found["spaces"], found["growth"]) == ("cache", [], [])


def test_spaces_are_listed_with_their_size_and_growth(api: Service) -> None:
    embed(api, "one", "two", "three")
    embed(api, "one", model="prompted", prompt_name="query")
    found = contents(api)
    sizes = [(space["model"], space["prompt_name"], space["entries"], space["bytes"]) for space in found["spaces"]]
    assert sizes == [("fake", "", 3, 192), ("prompted", "query", 1, 64)]
    assert sum(part["entries"] for part in found["growth"]) == 4


def test_lookups_and_hits_are_counted(api: Service) -> None:
    def counted() -> tuple[int, int, int]:
        api.services.stores.space_use.write()
        found = contents(api)
        return (*(found["spaces"][0][name] for name in ("lookups", "hits")), found["totals"]["hits"])

    embed(api, "one", "two")
    before = counted()
    embed(api, "one", "two", "three")
    assert [after - earlier for after, earlier in zip(counted(), before, strict=True)] == [3, 2, 2]


# Prune


def prune(api: Service, **body: Any) -> Any:
    return api.http.post("/v1/cache/prune", json=body)


def test_pruning_only_counts_unless_dry_run_is_false(api: Service) -> None:
    embed(api, "one", "two")
    fingerprint = contents(api)["spaces"][0]["fingerprint"]
    assert prune(api, fingerprint=fingerprint).json() == {"object": "pruned", "entries": 2, "dry_run": True}
    assert contents(api)["spaces"][0]["entries"] == 2
    assert prune(api, fingerprint=fingerprint, dry_run=False).json()["entries"] == 2
    assert api.http.get("/v1/cache").json()["spaces"] == []


def test_the_oldest_go_first(api: Service) -> None:
    embed(api, "older")
    embed(api, "newer")
    assert prune(api, max_bytes=64, dry_run=False).json()["entries"] == 1
    answer = api.http.post("/v1/embeddings", json={"input": ["newer", "older"]})
    assert answer.headers["x-semel-cache"] == "hits=1; computed=1; coalesced=0"


def test_an_age_that_no_vector_has_deletes_nothing(api: Service) -> None:
    embed(api, "young")
    assert prune(api, older_than_s=3600, dry_run=False).json()["entries"] == 0
    assert prune(api, older_than_s=0, dry_run=False).json()["entries"] == 1


def test_vectors_of_a_stored_job_stay(api: Service) -> None:
    api.http.post("/v1/jobs", json={"input": ["of a job"]})
    embed(api, "of a request")
    assert prune(api, max_bytes=0, dry_run=False).json()["entries"] == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "nothing selects vectors to delete: send max_bytes, older_than_s or fingerprint"),
        ({"dry_run": False}, "nothing selects vectors to delete"),
        ({"fingerprint": "00"}, "no vector space has the fingerprint '00'; GET /v1/cache lists them"),
        ({"fingerprint": "zz"}, "no vector space has the fingerprint 'zz'"),
        ({"max_bytes": -1}, "max_bytes: "),
        ({"older_than_s": -1}, "older_than_s: "),
        ({"everything": True}, "everything: "),
    ],
)
def test_a_prune_without_a_sound_selection_deletes_nothing(api: Service, body: dict[str, Any], message: str) -> None:
    embed(api, "stays")
    answer = prune(api, **{"dry_run": False, **body})
    assert answer.status_code == 400
    assert message in message_of(answer)
    assert contents(api)["spaces"][0]["entries"] == 1


# Verify


def verified(api: Service, **params: Any) -> Any:
    answer = api.http.post("/v1/cache/verify", params=params)
    assert answer.headers["content-type"].startswith("text/event-stream")
    name, data = answer.text.strip().split("\n\n")[-1].split("\n")
    assert name == "event: end"
    return json.loads(data.removeprefix("data: "))


def damage_one(api: Service) -> None:
    with api.services.stores.db.write() as conn:
        key = conn.execute(rows.select().with_only_columns(rows.c.key)).scalars().first()
        conn.execute(update(rows).where(rows.c.key == key).values(crc=rows.c.crc + 1))


def test_a_sound_cache_has_no_damaged_rows(api: Service) -> None:
    embed(api, "one", "two")
    assert verified(api) == {"entries": 2, "damaged": 0, "keys": [], "repaired": False}


def test_a_damaged_row_is_named_and_stays(api: Service) -> None:
    embed(api, "one", "two")
    damage_one(api)
    for _ in range(2):
        end = verified(api)
        assert (end["entries"], end["damaged"], len(end["keys"][0])) == (2, 1, 64)


def test_repair_deletes_damaged_rows_and_the_text_is_computed_again(api: Service) -> None:
    before = embed(api, "one")
    damage_one(api)
    assert verified(api, repair=True)["repaired"] is True
    assert verified(api) == {"entries": 0, "damaged": 0, "keys": [], "repaired": False}
    assert np.array_equal(embed(api, "one"), before)


# Import


def put(api: Service, content: bytes, kind: str = NDJSON, **params: str) -> Any:
    return api.http.put(
        "/v1/cache/vectors", params={"model": "fake", **params}, content=content, headers={"content-type": kind}
    )


def lines(texts: list[str], vectors: Vectors) -> bytes:
    records = [{"text": text, "embedding": row.tolist()} for text, row in zip(texts, vectors, strict=True)]
    return "".join(json.dumps(record) + "\n" for record in records).encode()


@pytest.fixture
def made(api: Service) -> tuple[list[str], Vectors]:
    """Texts and their vectors, which the cache has forgotten."""
    texts = [f"made elsewhere {i}" for i in range(5)]
    vectors = embed(api, *texts)
    prune(api, max_bytes=0, dry_run=False)
    return texts, vectors


def test_imported_vectors_are_hits(api: Service, made: tuple[list[str], Vectors]) -> None:
    texts, vectors = made
    imported = put(api, lines(texts, vectors)).json()
    assert imported["stored"] + imported["present"] == 5
    answer = api.http.post("/v1/embeddings", json={"input": texts})
    assert answer.headers["x-semel-cache"].startswith("hits=5")
    assert put(api, lines(texts, vectors)).json() == {"stored": 0, "present": 5, "compared": 0}


@pytest.mark.parametrize("kind", [PARQUET, "application/x-parquet", "Application/X-Parquet; charset=binary"])
def test_parquet_is_read_too(api: Service, made: tuple[list[str], Vectors], kind: str) -> None:
    texts, vectors = made
    file = io.BytesIO()
    pq.write_table(pa.table({"text": texts, "embedding": list(vectors)}), file)
    imported = put(api, file.getvalue(), kind)
    assert imported.status_code == 200, imported.text


def test_vectors_of_another_model_are_refused(api: Service, made: tuple[list[str], Vectors]) -> None:
    texts, vectors = made
    answer = put(api, lines(texts, vectors[::-1].copy()))
    assert (answer.status_code, "differs from the one that 'fake' computes here" in message_of(answer)) == (400, True)
    prompted = put(api, lines(texts, vectors), model="prompted", prompt_name="query")
    assert (prompted.status_code, "differs from the one that 'prompted' computes here" in message_of(prompted)) == (
        400,
        True,
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not json\n", "row 1: not JSON"),
        (b'{"text": "a", "embedding": [1]', "row 1: "),
        (b'{"text": "a"}\n', "embedding"),
        (b'{"text": "a", "embedding": [1, 2]}\n', "embedding is not a list of 16 numbers"),
        (b'{"text": 3, "embedding": [1]}\n', "row 1: "),
    ],
)
def test_rows_that_cannot_be_read_are_named(api: Service, content: bytes, message: str) -> None:
    answer = put(api, content)
    assert answer.status_code == 400
    assert message in message_of(answer)


def test_a_file_that_is_no_parquet_is_not_called_by_its_name_on_the_server(api: Service) -> None:
    message = message_of(put(api, b"no table at all", PARQUET))
    assert message.startswith("the file")
    assert "part-" not in message


@pytest.mark.parametrize("kind", ["text/csv", "application/json", ""])
def test_another_content_type_is_refused_with_those_that_are_read(api: Service, kind: str) -> None:
    answer = put(api, b"x", kind)
    assert answer.status_code == 400
    assert f"{NDJSON}, {PARQUET}" in message_of(answer)
    assert (kind or "missing") in message_of(answer)


@pytest.mark.parametrize(("params", "status"), [({"model": "nope"}, 404), ({"prompt_name": "nope"}, 400)])
def test_an_unknown_model_is_404_and_an_unknown_prompt_400(api: Service, params: dict[str, str], status: int) -> None:
    answer = put(api, b'{"text": "a", "embedding": [1]}\n', **params)
    assert (answer.status_code, "'nope'" in message_of(answer)) == (status, True)


def test_an_import_names_its_model(api: Service) -> None:
    answer = api.http.put("/v1/cache/vectors", content=b"x", headers={"content-type": NDJSON})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
