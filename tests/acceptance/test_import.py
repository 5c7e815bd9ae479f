"""Imported vectors become hits; vectors of another model never do."""

import io
import json
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semel.errors import BadInputError
from semel.values.vectors import Vectors
from tests.support.processes import Processes, processes

TEXTS = [f"made elsewhere {i}" for i in range(1200)]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Vectors:
    """The vectors of TEXTS, from another server with the same model."""
    with processes(tmp_path_factory.mktemp("elsewhere"), model="fail_on=poison&max_tokens=20") as other:
        return other.client.embed(TEXTS, model="fake")


def headers(semel: Processes, text: str) -> str:
    answer = httpx.post(f"{semel.url}/v1/embeddings", json={"model": "fake", "input": text})
    return answer.headers["x-semel-cache"]


def test_imported_vectors_are_hits(semel: Processes, elsewhere: Vectors) -> None:
    rows = list(zip(TEXTS[:700], elsewhere[:700].tolist(), strict=True))
    stored, present = semel.client.put_vectors(rows, model="fake")
    assert stored + present == 700
    assert 0 < present <= 42, "those that were compared, 5 % of each part, are in the cache by then"
    assert headers(semel, TEXTS[333]).startswith("hits=1")
    np.testing.assert_array_equal(semel.client.embed(TEXTS[:700], model="fake"), elsewhere[:700])
    answer = httpx.post(f"{semel.url}/v1/embeddings", json={"model": "fake", "input": TEXTS[333]})
    assert answer.json()["usage"]["prompt_tokens"] == 3, "counted by the model's own tokenizer"
    assert semel.client.put_vectors(rows, model="fake") == (0, 700)


def test_parquet_is_accepted_too(semel: Processes, elsewhere: Vectors) -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": TEXTS[700:], "embedding": elsewhere[700:].tolist()}), out)
    answer = httpx.put(
        f"{semel.url}/v1/cache/vectors",
        params={"model": "fake"},
        content=out.getvalue(),
        headers={"content-type": "application/vnd.apache.parquet"},
    )
    assert answer.status_code == 200
    done = answer.json()
    assert (done["stored"] + done["present"], done["compared"]) == (500, 25)
    assert headers(semel, TEXTS[-300]).startswith("hits=1")


@pytest.mark.parametrize("change", ["swapped", "scaled", "prompt"])
def test_vectors_of_another_text_scale_or_prompt_are_refused(semel: Processes, change: str) -> None:
    texts = [f"not these {change} {i}" for i in range(40)]
    vectors = semel.client.embed([f"find {text}" if change == "prompt" else text for text in texts], model="prompted")
    if change == "swapped":
        vectors = vectors[::-1]
    if change == "scaled":
        vectors = vectors * 1.1
    others = [f"other {text}" for text in texts]
    with pytest.raises(BadInputError, match="differs from the one that 'fake' computes here"):
        semel.client.put_vectors(zip(others, vectors, strict=True), model="fake")
    served = semel.client.embed(others, model="fake")  # those that were compared have been computed
    assert not np.isclose(served, vectors).all(axis=1).any()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"text": "x", "embedding": [1.0]}, "row 1: embedding is not a list of 16 numbers"),
        ({"text": "x", "embedding": ["a"] * 16}, "row 1: embedding is not a list of 16 numbers"),
        ({"text": 5, "embedding": [1.0] * 16}, "row 1: text is not a string"),
        ({"text": "", "embedding": [1.0] * 16}, "text 0 is empty"),
        ({"text": "x", "embedding": [0.0] * 16}, "all zero"),
        ({"text": "x", "embedding": [1e999] * 16}, "not finite"),
    ],
)
def test_an_invalid_row_is_refused(semel: Processes, line: object, message: str) -> None:
    answer = httpx.put(
        f"{semel.url}/v1/cache/vectors",
        params={"model": "fake"},
        content=json.dumps(line).encode(),
        headers={"content-type": "application/x-ndjson"},
    )
    assert answer.status_code == 400
    reported = answer.json()["error"]["message"]
    assert message in reported
    assert "part-" not in reported


def test_other_bodies_and_models_are_refused(semel: Processes) -> None:
    def put(kind: str, model: str) -> httpx.Response:
        url = f"{semel.url}/v1/cache/vectors"
        line = b'{"text": "x", "embedding": [1]}'
        return httpx.put(url, params={"model": model}, content=line, headers={"content-type": kind})

    assert put("text/csv", "fake").status_code == 400
    assert put("application/x-ndjson", "nope").status_code == 404
    assert "is a cross-encoder" in put("application/x-ndjson", "reranker").text


def test_a_space_moves_from_one_cache_to_another(tmp_path: Path) -> None:
    with processes(tmp_path) as one:
        vectors = one.client.embed(TEXTS[:50], model="fake")
        one.semel("cache", "export", "space.parquet")
        done = one.semel("cache", "export", "space.txt", ok=False)
        assert ".parquet file" in done.stderr
    other = tmp_path / "other"
    other.mkdir()
    with processes(other) as two:
        (other / "space.parquet").write_bytes((tmp_path / "space.parquet").read_bytes())
        assert "50 vectors stored, 0 were" in two.semel("cache", "import", "space.parquet").stdout
        assert "0 vectors stored, 50 were" in two.semel("cache", "import", "space.parquet").stdout
        assert headers(two, TEXTS[7]).startswith("hits=1")
        np.testing.assert_array_equal(two.client.embed(TEXTS[:50], model="fake"), vectors)
        rows = [{"text": f"row {i}", "embedding": v} for i, v in enumerate(vectors.tolist())]
        (other / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        refused = two.semel("cache", "import", "rows.jsonl", "--model", "fake", ok=False)
        assert "differs from the one that 'fake' computes here" in refused.stderr
        good = two.client.embed(["row 0"], model="prompted")[0].tolist()
        (other / "rows.jsonl").write_text(json.dumps({"text": "row 0", "embedding": good}))
        assert "were in the cache already" in two.semel("cache", "import", "rows.jsonl", "--model", "fake").stdout


def test_a_damaged_export_is_refused(tmp_path: Path) -> None:
    with processes(tmp_path) as one:
        one.client.embed(TEXTS[:3], model="fake")
        one.semel("cache", "export", "space.parquet")
        table = pq.read_table(tmp_path / "space.parquet")
        data = [bytes([blob[0] ^ 1]) + blob[1:] for blob in table["data"].to_pylist()]
        broken = table.set_column(table.schema.get_field_index("data"), "data", pa.array(data, pa.binary()))
        pq.write_table(broken, tmp_path / "broken.parquet")
        assert "is damaged" in one.semel("cache", "import", "broken.parquet", ok=False).stderr
