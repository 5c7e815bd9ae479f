"""Results of a job: four formats, any range of them, and vectors that the cache has lost since."""

import io
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semel.api.jobs.result_formats import FORMATS, check_ready
from semel.errors import ConflictError
from semel.values.job import Job
from semel.values.text import ItemError
from tests.support.job_results import embed, lines, read, run
from tests.support.parts import Parts, parts
from tests.support.service import Service


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    """Services with chunks of four texts, so that a range touches several."""
    with parts(tmp_path_factory.mktemp("parts"), chunk_texts=4) as made:
        yield made


def table(running: Parts, job: Job, fmt: str, span: range | None = None) -> pa.Table:
    content = pa.BufferReader(read(running, job, fmt, span))
    return pa.ipc.open_stream(content).read_all() if fmt == "arrow" else pq.read_table(content)


ROWS = [
    {"id": "a", "text": "first", "page": 3},
    {"id": 7, "text": "second poison"},
    {"text": ""},
    {"id": {"any": ["thing"]}, "text": " ".join(["long"] * 30)},
    {"text": "first"},
    {"id": "last", "text": "after the chunk", "tags": ["x", None]},
]


@pytest.fixture(scope="module")
def mixed(running: Parts) -> Job:
    """A job with a hit, failures, a truncated text and a repetition, over two chunks."""
    return run(running, ROWS)


# Formats


def test_ndjson_has_a_line_for_each_text_with_all_that_came_with_it(running: Parts, mixed: Job) -> None:
    got = lines(running, mixed)
    assert [line["index"] for line in got] == [0, 1, 2, 3, 4, 5]
    assert [line.get("id") for line in got] == ["a", 7, None, {"any": ["thing"]}, None, "last"]
    assert got[0]["metadata"] == {"page": 3}
    assert got[5]["metadata"] == {"tags": ["x", None]}
    assert "metadata" not in got[2]
    assert [line["outcome"] for line in got] == ["computed", "failed", "failed", "computed", "hit", "computed"]
    assert [line.get("truncated") for line in got] == [False, None, None, True, False, False]


def test_a_failed_text_has_its_error_and_no_embedding(running: Parts, mixed: Job) -> None:
    got = lines(running, mixed)
    assert [line.get("error", {}).get("code") for line in got[1:3]] == ["backend_error", "invalid_text"]
    assert ["embedding" in line for line in got] == [True, False, False, True, True, True]


def test_numbers_in_ndjson_are_exactly_those_of_the_cache(running: Parts, mixed: Job) -> None:
    got = lines(running, mixed)
    texts = [ROWS[i]["text"] for i in (0, 5)]
    stored = np.array([got[i]["embedding"] for i in (0, 5)], np.float32)
    np.testing.assert_array_equal(stored, embed(running, [str(text) for text in texts]))


@pytest.mark.parametrize("fmt", ["arrow", "parquet"])
def test_tables_have_a_null_embedding_for_a_failed_text(running: Parts, mixed: Job, fmt: str) -> None:
    got = table(running, mixed, fmt)
    assert got["index"].to_pylist() == [0, 1, 2, 3, 4, 5]
    assert got["id"].to_pylist() == ["a", "7", None, "{'any': ['thing']}", None, "last"]
    assert got["metadata"].to_pylist() == ['{"page":3}', "{}", None, "{}", None, '{"tags":["x",null]}']
    assert [e is None for e in got["embedding"].to_pylist()] == [False, True, True, False, False, False]
    assert [e is None for e in got["error"].to_pylist()] == [True, False, False, True, True, True]
    assert got["truncated"].to_pylist()[3] is True
    assert got.schema.field("embedding").type == pa.list_(pa.float32(), 16)


@pytest.mark.parametrize("fmt", ["arrow", "parquet"])
def test_tables_have_the_numbers_of_ndjson(running: Parts, mixed: Job, fmt: str) -> None:
    from_lines = {line["index"]: line["embedding"] for line in lines(running, mixed) if "embedding" in line}
    from_table = {i: e for i, e in enumerate(table(running, mixed, fmt)["embedding"].to_pylist()) if e is not None}
    assert from_table.keys() == from_lines.keys()
    for index, numbers in from_table.items():
        np.testing.assert_array_equal(np.array(numbers, np.float32), np.array(from_lines[index], np.float32))


def test_a_parquet_file_has_a_row_group_for_each_chunk(running: Parts, mixed: Job) -> None:
    file = pq.ParquetFile(pa.BufferReader(read(running, mixed, "parquet")))
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [4, 2]


def test_a_lone_surrogate_in_an_id_breaks_no_format(running: Parts) -> None:
    job = run(running, [{"id": "\ud800", "text": "with half an id", "k": "\udfff"}])
    assert table(running, job, "parquet")["id"].to_pylist() == ["?"]
    assert lines(running, job)[0]["id"] == "\ud800"


def test_npy_is_what_numpy_reads(running: Parts) -> None:
    texts = [f"as an array {i}" for i in range(9)]
    array = np.load(io.BytesIO(read(running, run(running, texts), "npy")))
    assert (array.dtype, array.shape) == (np.float32, (9, 16))
    np.testing.assert_array_equal(array, embed(running, texts))


def test_pairs_have_scores_in_ndjson_and_one_column_elsewhere(running: Parts) -> None:
    pairs = [{"query": "red fox", "document": text} for text in ("a red fox", "a dog", "a fox")]
    job = run(running, pairs, model="reranker")
    assert [line["score"] for line in lines(running, job)] == [1.0, 0.0, 0.5]
    assert all("embedding" not in line for line in lines(running, job))
    assert np.load(io.BytesIO(read(running, job, "npy"))).tolist() == [[1.0], [0.0], [0.5]]


def test_every_format_has_a_media_type() -> None:
    assert {name: media_type for name, (media_type, _) in FORMATS.items()} == {
        "ndjson": "application/x-ndjson",
        "npy": "application/octet-stream",
        "arrow": "application/vnd.apache.arrow.stream",
        "parquet": "application/vnd.apache.parquet",
    }


# Ranges

SPANS = [range(10), range(1), range(3, 4), range(3, 5), range(4, 8), range(5, 7), range(2, 10), range(9, 10)]


@pytest.fixture(scope="module")
def ten(running: Parts) -> Job:
    """Ten texts, of which number 3 and 6 fail, in chunks of four."""
    return run(running, [{"id": i, "text": "poison" if i in (3, 6) else f"of ten, number {i}"} for i in range(10)])


@pytest.mark.parametrize("span", SPANS, ids=str)
def test_a_range_is_that_part_of_all_lines(running: Parts, ten: Job, span: range) -> None:
    assert lines(running, ten, span) == lines(running, ten)[span.start : span.stop]


@pytest.mark.parametrize("fmt", ["arrow", "parquet"])
@pytest.mark.parametrize("span", SPANS, ids=str)
def test_a_range_is_that_part_of_the_whole_table(running: Parts, ten: Job, fmt: str, span: range) -> None:
    assert table(running, ten, fmt, span).to_pylist() == table(running, ten, fmt).to_pylist()[span.start : span.stop]


@pytest.mark.parametrize("fmt", ["ndjson", "arrow", "parquet"])
def test_an_empty_range_is_a_valid_file_without_rows(running: Parts, ten: Job, fmt: str) -> None:
    if fmt == "ndjson":
        assert lines(running, ten, range(10, 10)) == []
    else:
        assert table(running, ten, fmt, range(10, 10)).num_rows == 0


def test_the_header_of_npy_has_the_length_of_the_range(running: Parts) -> None:
    job = run(running, [f"in part {i}" for i in range(9)])
    whole = np.load(io.BytesIO(read(running, job, "npy")))
    for span in (range(3, 6), range(9, 9)):
        part = np.load(io.BytesIO(read(running, job, "npy", span)))
        np.testing.assert_array_equal(part, whole[span.start : span.stop])


# Over HTTP


@pytest.mark.parametrize(("query", "expected"), [("", 5), ("offset=3", 2), ("limit=2", 2), ("offset=9&limit=1", 0)])
def test_the_route_takes_offset_and_limit(api: Service, query: str, expected: int) -> None:
    job = api.http.post("/v1/jobs", json={"input": [f"by the route {i}" for i in range(5)]}).json()
    answer = api.http.get(f"/v1/jobs/{job['id']}/results?{query}")
    assert len(answer.text.splitlines()) == expected
    assert answer.headers["content-type"] == "application/x-ndjson"


def test_a_file_name_of_the_page_names_the_download(api: Service) -> None:
    job = api.http.post("/v1/jobs", json={"input": ["named"], "metadata": {"file": "Käse.csv"}}).json()
    header = api.http.get(f"/v1/jobs/{job['id']}/results?format=npy").headers["content-disposition"]
    assert header.endswith("filename*=UTF-8''K%C3%A4se.npy")


def test_an_unknown_format_is_refused(api: Service) -> None:
    assert api.http.get("/v1/jobs/job_x/results?format=csv").status_code == 400


# Jobs without results


def test_a_job_has_results_when_it_is_completed(running: Parts) -> None:
    running.worker.paused = True
    job = run(running, ["not computed yet"])
    with pytest.raises(ConflictError, match=f"job {job.id} is in_progress; results are available once it is completed"):
        check_ready(job, "ndjson")
    running.run_waiting()
    check_ready(running.services.stores.jobs.get(job.id), "npy")


def test_a_failed_job_says_why_it_has_no_results(running: Parts) -> None:
    running.worker.paused = True
    job = run(running, ["never computed"])
    running.services.stores.jobs.fail(job.id, ItemError("storage_full", "no room"))
    running.worker.paused = False
    with pytest.raises(ConflictError, match="is failed: no room; results"):
        check_ready(running.services.stores.jobs.get(job.id), "ndjson")


def test_npy_is_refused_for_a_job_with_failed_texts(running: Parts, mixed: Job) -> None:
    with pytest.raises(ConflictError, match="2 of 6 texts failed, and npy cannot mark their rows; use format=ndjson"):
        check_ready(mixed, "npy")
    for fmt in ("ndjson", "arrow", "parquet"):
        check_ready(mixed, fmt)


def test_a_job_that_is_deleted_while_it_is_read_ends_the_stream_with_an_error(running: Parts) -> None:
    job = run(running, [f"deleted {i}" for i in range(80)])
    stream = running.services.results.read(job, range(80), may_submit=True)
    next(stream)
    running.services.stores.jobs.delete(job.id)
    with pytest.raises(ConflictError, match="of 80 rows; it was deleted while its results were read"):
        list(stream)
