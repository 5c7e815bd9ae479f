"""Rows on their way into a job: NDJSON that is cut anywhere, bad lines by number, chunks in order."""

import json
from typing import Any

import pytest

from semel.api.jobs.ingest import Ingest, cutter
from semel.api.jobs.submission import create, job_ingest
from semel.api.jobs.wire import JobRequest
from semel.cache.keys import input_key
from semel.errors import BadInputError, ConflictError
from semel.settings import Settings
from semel.tasks.jobs.rows import NO_KEY, Added, NewChunk
from semel.values.job import JobStatus
from semel.values.text import Extra, Pair
from tests.support.collecting import Collecting
from tests.support.parts import Parts
from tests.support.values import space


def ndjson(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


ROWS = [{"id": 1, "text": "ein Wörtchen"}, {"text": "two\nlines"}, {"text": "大", "page": {"a": [1]}}]


# Lines


@pytest.mark.parametrize("size", range(1, 30))
def test_ndjson_may_be_cut_anywhere(size: int) -> None:
    data, ingest = ndjson(*ROWS), Collecting()
    for at in range(0, len(data), size):
        ingest.feed_lines(data[at : at + size])
    (chunk,) = ingest.finish()
    assert chunk.texts == ["ein Wörtchen", "two\nlines", "大"]
    assert list(chunk.extras) == [Extra(1, {}), None, Extra(None, {"page": {"a": [1]}})]


def test_the_last_line_needs_no_end() -> None:
    ingest = Collecting()
    ingest.feed_lines(ndjson(*ROWS).rstrip(b"\n"))
    assert ingest.texts() == ["ein Wörtchen", "two\nlines", "大"]


def test_lines_may_end_as_on_windows_and_empty_ones_are_no_rows() -> None:
    ingest = Collecting()
    ingest.feed_lines(b'{"text": "a"}\r\n\r\n  \n\n{"text": "b"}\r\n')
    assert ingest.texts() == ["a", "b"]


def test_a_byte_order_mark_is_no_part_of_the_first_row() -> None:
    ingest = Collecting()
    ingest.feed_lines(b'\xef\xbb\xbf{"text": "a"}\n{"text": "b"}\n')
    assert ingest.texts() == ["a", "b"]


def test_keys_are_those_of_the_texts() -> None:
    where, ingest = space(), Collecting()
    ingest.feed_lines(ndjson({"text": "a"}, {"text": "b"}, {"text": "a"}))
    (chunk,) = ingest.finish()
    assert chunk.keys == [input_key(where.fingerprint, text) for text in ("a", "b", "a")]


BAD_LINES = pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"oops", "line 3: not JSON: Expecting value"),
        (b'{"text": "a"', "line 3: not JSON"),
        (b'{"text": "a"} {"text": "b"}', "line 3: not JSON"),
        (b'{"text": "a"},{"text": "b"}', "line 3: not JSON"),
        (b'{"text": ' + b"[" * 100_000, "line 3: not JSON"),
        (b"\xff\xfe", "line 3: not JSON"),
        (b'"a bare text"', 'line 3: "text" is missing; each row must be {"text": "…"}'),
        (b"[]", 'line 3: "text" is missing'),
        (b"{}", 'line 3: "text" is missing'),
        (b'{"text": null}', 'line 3: "text" is null'),
        (b'{"text": ["a"]}', 'line 3: "text" is list, not a string'),
    ],
)
ENDS = pytest.mark.parametrize("ends", [b"\n", b""])


class Strict(Collecting):
    """A submission that is refused for one bad row."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        chosen = Settings(**settings)
        self._cutter = cutter(chosen, self.space, key_base=self.space.key_base, text_field="text", strict=True)


@BAD_LINES
@ENDS
def test_a_bad_line_keeps_its_place_and_is_named_by_its_number(line: bytes, message: str, ends: bytes) -> None:
    ingest = Collecting()
    ingest.feed_lines(b'{"text": "fine"}\n\n' + line + ends)
    (chunk,) = ingest.finish()
    assert (chunk.texts, chunk.keys[1]) == (["fine", ""], NO_KEY)
    assert chunk.errors[1].code == "invalid_text"
    assert chunk.errors[1].message.startswith(message)


@BAD_LINES
@ENDS
def test_a_bad_line_is_refused_when_all_must_be_good(line: bytes, message: str, ends: bytes) -> None:
    ingest = Strict()
    with pytest.raises(BadInputError) as refused:  # noqa: PT012  # either call may find it
        ingest.feed_lines(b'{"text": "fine"}\n\n' + line + ends)
        ingest.finish()
    assert str(refused.value).startswith(message)
    assert "(strict: nothing was accepted)" in str(refused.value)


@BAD_LINES
@ENDS
def test_lines_of_which_none_is_a_row_are_refused_with_the_reason_of_the_first(
    line: bytes, message: str, ends: bytes
) -> None:
    ingest = Collecting()
    ingest.feed_lines(b"\n\n" + line + b"\n" + line + ends)
    with pytest.raises(BadInputError) as refused:
        ingest.finish()
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("lines", "bad"),
    [
        ([b'{"text":"a"},{"text":"b","z":[{}', b"{}]}"], 2),
        ([b'{"text":"a"},0,{"text":"b","z":[{}', b"{}]}"], 2),
        ([b'{"text":"a","z":[{}', b'{}]},{"text":"b"}'], 2),
    ],
)
def test_lines_that_are_json_only_together_are_no_rows(lines: list[bytes], bad: int) -> None:
    ingest = Collecting()
    ingest.feed_lines(b"\n".join([*lines, b'{"text": "fine"}']) + b"\n")
    (chunk,) = ingest.finish()
    assert chunk.texts == [""] * bad + ["fine"]
    messages = [chunk.errors[i].message for i in range(bad)]
    assert [message.partition(": Ex")[0] for message in messages] == [f"line {i}: not JSON" for i in (1, 2)]


def test_numbers_count_on_over_all_parts() -> None:
    ingest = Collecting()
    ingest.feed_lines(ndjson(*ROWS))
    ingest.feed_lines(ndjson(*ROWS))
    ingest.feed_lines(b"oops\n")
    (chunk,) = ingest.finish()
    assert chunk.errors[6].message.startswith("line 7: not JSON")


def test_a_text_with_a_lone_surrogate_fails_alone() -> None:
    ingest = Collecting()
    ingest.feed_lines(b'{"text": "a"}\n{"text": "\\ud800"}\n{"text": "b"}\n')
    (chunk,) = ingest.finish()
    assert chunk.texts == ["a", "", "b"]
    assert chunk.keys[1] == NO_KEY
    assert {i: error.code for i, error in chunk.errors.items()} == {1: "invalid_text"}
    assert "lone surrogate" in chunk.errors[1].message


def test_empty_and_long_texts_keep_their_places() -> None:
    ingest = Collecting(max_text_bytes=10)
    ingest.feed_lines(ndjson({"text": "x" * 11}, {"text": "x" * 10}, {"text": ""}))
    (chunk,) = ingest.finish()
    assert chunk.texts == ["", "x" * 10, ""]
    assert "longer than 10 characters" in chunk.errors[0].message
    assert chunk.errors[2].message.startswith("text 2 is empty")


@pytest.mark.parametrize("size", [1, 7, 100, 150, 10_000])
@pytest.mark.parametrize("ends", [b'"}\n', b'"}'])
def test_a_line_that_is_too_long_fails_alone_and_is_never_held(size: int, ends: bytes) -> None:
    ingest = Collecting(max_text_bytes=100)
    data = b'{"text": "a"}\n{"text": "' + b"x" * 3000 + ends
    data += b'{"text": "c"}\noops\n' if ends.endswith(b"\n") else b""
    for at in range(0, len(data), size):
        ingest.feed_lines(data[at : at + size])
        assert len(ingest._rest) <= 200
    (chunk,) = ingest.finish()
    assert chunk.texts == ["a", ""] + (["c", ""] if ends.endswith(b"\n") else [])
    assert "longer than" in chunk.errors[1].message
    if size < 3000:
        assert chunk.errors[1].message == "line 2: longer than 200 bytes, twice SEMEL_MAX_TEXT_BYTES; split the text"
    if ends.endswith(b"\n"):
        assert chunk.errors[3].message.startswith("line 4: not JSON")


def test_a_line_that_is_too_long_is_refused_before_its_end_when_all_must_be_good() -> None:
    ingest = Strict(max_text_bytes=100)
    ingest.feed_lines(b'{"text": "a"}\n{"text": "' + b"x" * 100)
    with pytest.raises(BadInputError, match=r"line 2: longer than 200 bytes, twice SEMEL_MAX_TEXT_BYTES"):
        ingest.feed_lines(b"x" * 100)


# Rows and chunks


def test_rows_of_a_cross_encoder_are_pairs() -> None:
    ingest = Collecting(space(dim=1, kind="cross-encoder"))
    assert ingest.fields == ("query", "document")
    ingest.feed_lines(ndjson({"query": "q", "document": "d", "id": 5}))
    (chunk,) = ingest.finish()
    assert (chunk.texts, list(chunk.extras)) == ([Pair("q", "d")], [Extra(5, {})])


def test_a_bare_text_is_no_pair() -> None:
    with pytest.raises(BadInputError, match="is a cross-encoder"):
        Collecting(space(dim=1, kind="cross-encoder")).add("a text")


def test_a_row_that_could_not_be_read_keeps_its_place_and_its_id() -> None:
    ingest = Collecting()
    ingest.add("a")
    ingest.add_bad("row 2: not UTF-8", Extra("b", {}))
    ingest.add("c")
    (chunk,) = ingest.finish()
    assert chunk.texts == ["a", "", "c"]
    assert (chunk.errors[1].message, list(chunk.extras)[1]) == ("row 2: not UTF-8", Extra("b", {}))


def test_chunks_are_taken_eight_at_a_time_and_the_rest_at_the_end() -> None:
    ingest = Collecting(chunk_texts=2)
    ingest.feed_lines(ndjson(*({"text": f"text {i}"} for i in range(37))))
    chunks = ingest.finish()
    assert ingest.takes == [8, 8, 3]
    assert [chunk.first_index for chunk in chunks] == list(range(0, 37, 2))
    assert [text for chunk in chunks for text in chunk.texts] == [f"text {i}" for i in range(37)]


def test_bare_texts_and_bad_rows_fill_chunks_too() -> None:
    ingest = Collecting(chunk_texts=1)
    for i in range(8):
        ingest.add(f"text {i}") if i % 2 else ingest.add_bad("bad")
    assert ingest.takes == [8]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"  "])
def test_a_submission_without_rows_is_refused(data: bytes) -> None:
    ingest = Collecting()
    ingest.feed_lines(data)
    with pytest.raises(BadInputError, match="the list of texts is empty; send at least one text"):
        ingest.finish()


def test_a_submission_of_bad_rows_only_is_a_submission() -> None:
    ingest = Collecting()
    ingest.add_bad("bad")
    assert len(ingest.finish()) == 1


# Jobs


def test_a_job_runs_while_its_rows_arrive(running: Parts) -> None:
    services = running.services
    job = create(services, JobRequest(input=[], model="fake"))
    counted: list[tuple[int, Added]] = []
    ingest = job_ingest(services, job)
    ingest._on_added = lambda _space, texts, added: counted.append((texts, added))
    ingest.take([chunk(ingest, "arrives first", 0)])
    under_way = services.stores.jobs.get(job.id)
    assert (under_way.status, under_way.counts.computed) == (JobStatus.VALIDATING, 1)
    ingest.take([chunk(ingest, "arrives second", 1), chunk(ingest, "", 2)])
    done = ingest.end()
    assert (done.status, done.total, done.counts.computed, done.counts.failed) == (JobStatus.COMPLETED, 3, 2, 1)
    assert counted == [(1, Added(0, 0)), (1, Added(0, 0))], "a text with an error is no look-up"


def chunk(ingest: Ingest[Any], text: str, index: int) -> NewChunk:
    one = Collecting(ingest.space)
    one.add(text)
    (made,) = one.finish()
    return NewChunk(index, made.keys, made.texts, made.errors, made.extras)


def test_hits_are_done_before_the_job_is_sealed(running: Parts) -> None:
    services = running.services
    services.pipeline.embed(services.stores.catalog.space("fake"), ["known to the cache"])
    before = services.watch.metrics.answered
    ingest = job_ingest(services, create(services, JobRequest(input=[], model="fake")))
    ingest.add("known to the cache")
    job = ingest.finish()
    assert (job.status, job.counts.hit) == (JobStatus.COMPLETED, 1)
    assert services.watch.metrics.answered == before + 1


def test_a_touch_keeps_a_slow_upload_alive(running: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    services, touched = running.services, list[str]()
    job = create(services, JobRequest(input=[], model="fake"))
    monkeypatch.setattr(services.stores.jobs, "touch", touched.append)
    job_ingest(services, job).touch()
    assert touched == [job.id]
    Collecting().touch()  # without a job there is nothing to keep alive


def test_a_job_that_was_cancelled_accepts_no_more_rows(running: Parts) -> None:
    services = running.services
    job = create(services, JobRequest(input=[], model="fake"))
    ingest = job_ingest(services, job)
    ingest.add("too late")
    services.stores.jobs.cancel(job.id)
    with pytest.raises(ConflictError, match="accepts no more texts"):
        ingest.finish()
