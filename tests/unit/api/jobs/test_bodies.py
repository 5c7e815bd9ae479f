"""What a job can be made of, over HTTP: every kind of body, its options, and what is wrong with it."""

import gzip
import json
from typing import Any

import httpx
import pytest
import zstandard

from tests.support.job_bodies import ROWS, as_csv, as_ndjson, as_parquet
from tests.support.service import Service

NDJSON = "application/x-ndjson"

AS_TSV = b'id\ttext\tpage\na\tfirst, with a comma\t3\nb\t"second\nwith ""lines"""\t4\na\tfirst, with a comma\t3\n'
"""The same as `ROWS`."""

BODIES = {
    "application/json": json.dumps({"input": ROWS}).encode(),
    NDJSON: as_ndjson(ROWS),
    "text/csv": as_csv(ROWS),
    "text/tab-separated-values": AS_TSV,
    "application/vnd.apache.parquet": as_parquet(ROWS),
    "application/x-parquet": as_parquet(ROWS),
}


def post(api: Service, content: bytes, kind: str, **params: Any) -> httpx.Response:
    return api.http.post("/v1/jobs", content=content, headers={"content-type": kind}, params=params)


def results(api: Service, answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 202, answer.text
    lines = api.http.get(f"/v1/jobs/{answer.json()['id']}/results").text.splitlines()
    return [json.loads(line) for line in lines]


def message(answer: httpx.Response, status: int = 400) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["error"]["message"])


# Kinds of bodies


@pytest.mark.parametrize("kind", BODIES)
def test_every_kind_of_body_gives_the_same_rows(api: Service, kind: str) -> None:
    rows = results(api, post(api, BODIES[kind], f"{kind.upper()}; charset=utf-8"))
    assert [row["id"] for row in rows] == ["a", "b", "a"]
    assert [row["metadata"] for row in rows] == [{"page": "3"}, {"page": "4"}, {"page": "3"}]
    direct = api.http.post("/v1/embeddings", json={"input": [row["text"] for row in ROWS]}).json()["data"]
    assert [row["embedding"] for row in rows] == [item["embedding"] for item in direct]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", as_ndjson(ROWS)),
        ("rows.NDJSON", as_ndjson(ROWS)),
        ("rows.csv", as_csv(ROWS)),
        ("rows.parquet", as_parquet(ROWS)),
        ("rows.json", json.dumps(ROWS).encode()),
        ("rows.tsv", AS_TSV),
        ("rows.jsonl.gz", gzip.compress(as_ndjson(ROWS))),
        ("rows.CSV.ZST", zstandard.compress(as_csv(ROWS))),
    ],
)
def test_a_form_brings_a_file_and_its_options(api: Service, name: str, content: bytes) -> None:
    options = {"model": "prompted", "metadata": '{"from": "a form"}', "truncate": "false"}
    answer = api.http.post("/v1/jobs", files={"file": (name, content)}, data=options)
    assert [row["id"] for row in results(api, answer)] == ["a", "b", "a"]
    assert (answer.json()["model"], answer.json()["metadata"]) == ("prompted", {"from": "a form"})


def test_a_text_file_has_one_text_a_line(api: Service) -> None:
    answer = api.http.post("/v1/jobs", files={"file": ("lines.txt", b"one line\nanother line\n")})
    assert [row["index"] for row in results(api, answer)] == [0, 1]


def test_a_body_without_a_content_type_is_json(api: Service) -> None:
    request = api.http.build_request("POST", "/v1/jobs", content=b'{"input": ["without a type"]}')
    request.headers.pop("content-type", None)
    assert len(results(api, api.http.send(request))) == 1


def test_rows_and_bare_texts_may_be_mixed_in_json(api: Service) -> None:
    answer = api.http.post("/v1/jobs", json={"input": ["bare", {"id": 2, "text": "with an id"}]})
    assert [row.get("id") for row in results(api, answer)] == [None, 2]


@pytest.mark.parametrize("kind", ["application/xml", "text/plain", "application/octet-stream"])
def test_another_kind_of_body_is_refused_with_those_that_are_known(api: Service, kind: str) -> None:
    text = message(post(api, b"x", kind))
    assert f"unsupported Content-Type '{kind}'" in text
    for known in (*BODIES, "multipart/form-data"):
        assert known in text


# Options


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/estimate"])
@pytest.mark.parametrize(
    ("where", "sent"),
    [
        ("query parameter 'dimensions'", {"params": {"dimensions": 4}, "json": {"input": ["x"]}}),
        ("form field 'dimensions'", {"data": {"dimensions": "4"}, "files": {"file": ("x.txt", b"x")}}),
        ("form field 'input'", {"data": {"input": "x"}, "files": {"file": ("x.txt", b"x")}}),
    ],
)
def test_an_unknown_option_is_refused_by_name(api: Service, path: str, where: str, sent: dict[str, Any]) -> None:
    text = message(api.http.post(path, **sent))
    assert f"unknown {where} (known: device, document_tokens, if_no_worker, input_type" in text


def test_an_unknown_field_of_a_json_body_is_refused_by_name(api: Service) -> None:
    assert "dimensions" in message(api.http.post("/v1/jobs", json={"input": ["x"], "dimensions": 4}))


def test_an_option_in_the_body_overrides_the_url(api: Service) -> None:
    params = {"model": "prompted", "metadata": '{"a": "url"}', "text_field": "body"}
    body = {"model": "fake", "metadata": {"a": "body"}, "input": [{"body": "by its own field"}]}
    job = api.http.post("/v1/jobs", json=body, params=params).json()
    assert (job["model"], job["metadata"]) == ("fake", {"a": "body"})
    form = {"files": {"file": ("x.csv", b"body\nx\n")}, "data": {"model": "fake"}, "params": params}
    job = api.http.post("/v1/jobs", **form).json()  # type: ignore[arg-type]
    assert (job["model"], job["metadata"]) == ("fake", {"a": "url"})


def test_another_field_may_be_the_text(api: Service) -> None:
    (row,) = results(api, post(api, as_csv([{"body": "a body", "text": "not this"}]), "text/csv", text_field="body"))
    assert row["metadata"] == {"text": "not this"}


@pytest.mark.parametrize("where", ["json", "url", "form"])
def test_a_kind_of_text_takes_its_prompt(api: Service, where: str) -> None:
    options, text = {"model": "prompted", "input_type": "document"}, f"prompted in {where}"
    sent: dict[str, Any] = {
        "json": {"json": {**options, "input": [text]}},
        "url": {"params": options, "json": {"input": [text]}},
        "form": {"data": options, "files": {"file": ("x.txt", text.encode())}},
    }[where]
    answer = api.http.post("/v1/jobs", **sent)
    assert answer.json()["prompt_name"] == "document"
    (row,) = results(api, answer)
    direct = api.http.post("/v1/embeddings", json={**options, "input": text})
    assert direct.headers["x-semel-cache"].startswith("hits=1")
    assert row["embedding"] == direct.json()["data"][0]["embedding"]


def test_an_option_of_the_wrong_type_is_refused_by_name(api: Service) -> None:
    file = {"file": ("x.txt", b"x")}
    assert "truncate" in message(api.http.post("/v1/jobs", files=file, data={"truncate": "perhaps"}))
    assert "truncate" in message(api.http.post("/v1/jobs", json={"input": ["x"]}, params={"truncate": "perhaps"}))
    assert "truncate" in message(api.http.post("/v1/jobs", json={"input": ["x"], "truncate": "perhaps"}))


def test_metadata_that_no_answer_could_repeat_is_refused(api: Service) -> None:
    half, file = '{"a": "\\ud800"}', {"file": ("x.txt", b"x")}
    for answer in (
        api.http.post("/v1/jobs", params={"metadata": half}, json={"input": ["x"]}),
        api.http.post("/v1/jobs", data={"metadata": half}, files=file),
        post(api, b'{"input": ["x"], "metadata": {"a": "\\ud800"}}', "application/json"),
    ):
        assert answer.status_code == 400


# Bad bodies


@pytest.mark.parametrize(
    ("content", "kind", "expected"),
    [
        (b"{oops", "application/json", "JSON"),
        (b"[]", "application/json", "the body: Input should be an object"),
        (b'{"input": []}', "application/json", "input is an empty list; send at least one text"),
        (b'{"input": "x"}', "application/json", "input"),
        (b"{}", "application/json", "input: Field required"),
        (b'{"input": [{"id": 1}, {"text": 5}]}', "application/json", 'input[0]: "text" is missing; each row must be'),
        (b'{"text": 5}', NDJSON, 'line 1: "text" is int, not a string; each row must be {"text": "…"}'),
        (b'oops\n{"id": 1}\n', NDJSON, "line 1: not JSON: "),
        (b"", NDJSON, "the list of texts is empty"),
        (b"a,b\n1,2\n", "text/csv", "the file: no column 'text' (columns: a, b)"),
        (b"text\n", "text/csv", "the list of texts is empty"),
        (b"text,a,a\nx,1,2\n", "text/csv", "the file: two columns have the name 'a'; rename one of them"),
        (b'text\n"x" y\n', "text/csv", "not CSV: "),
        (as_parquet([{"text": None}]), "application/x-parquet", 'row 1: "text" is null'),
        (b"not parquet", "application/x-parquet", "the file: not a Parquet file"),
        (b"--x--", "multipart/form-data; boundary=x", "the form has no file"),
        (b"--x--", "multipart/form-data; boundary=x; charset=unicode_escape", "the form's charset is 'unicode_escape'"),
        (b"x", "multipart/form-data", "not valid multipart/form-data"),
    ],
)
def test_a_body_that_cannot_be_read_says_why(api: Service, content: bytes, kind: str, expected: str) -> None:
    text = message(post(api, content, kind))
    assert expected in text
    assert "part-" not in text, "no path of the server"


def test_a_row_that_cannot_be_read_fails_alone(api: Service) -> None:
    table = as_csv([{"id": "1", "text": "good"}, {"id": "2", "text": "x"}]).replace(b"2,x", b"2,\xff\xfe")
    good, bad = results(api, post(api, table, "text/csv"))
    assert good["outcome"] in ("computed", "hit")
    assert (bad["outcome"], bad["id"]) == ("failed", "2")
    assert bad["error"]["message"].startswith("row 2: not UTF-8")


def test_a_row_with_surplus_cells_fails_alone(api: Service) -> None:
    good, bad = results(api, post(api, b"id,text\n1,a cell,\n2,one, and more\n", "text/csv"))
    assert "error" not in good
    assert (bad["id"], bad["error"]["message"].partition(";")[0]) == ("2", "row 2: 3 cells under 2 columns")


ONE_BAD_ROW = pytest.mark.parametrize(
    ("content", "kind", "expected"),
    [
        (b'{"input": ["good", {"id": 7}, "good"]}', "application/json", 'input[1]: "text" is missing'),
        (b'{"input": ["good", "", "good"]}', "application/json", "text 1 is empty"),
        (b'{"text": "good"}\noops\n{"text": "good"}\n', NDJSON, "line 2: not JSON"),
        (b'{"text": "good"}\n{"id": 7}\n{"text": "good"}\n', NDJSON, 'line 2: "text" is missing'),
        (b"text,id\ngood,1\nb,c,d\ngood,1\n", "text/csv", "row 2: 3 cells under 2 columns"),
        (b"id,text\n1,good\n7\n1,good\n", "text/csv", 'row 2: "text" is null'),
        (as_parquet([{"text": "good"}, {"text": None}, {"text": "good"}]), "application/x-parquet", '"text" is null'),
    ],
)


@ONE_BAD_ROW
def test_a_bad_row_fails_in_its_place(api: Service, content: bytes, kind: str, expected: str) -> None:
    first, bad, last = results(api, post(api, content, kind))
    assert [row["index"] for row in (first, bad, last)] == [0, 1, 2]
    assert first["embedding"] == last["embedding"]
    assert bad["outcome"] == "failed"
    assert expected in bad["error"]["message"]


@ONE_BAD_ROW
def test_a_submission_that_must_be_good_is_refused_for_one_bad_row(
    api: Service, content: bytes, kind: str, expected: str
) -> None:
    before = api.http.get("/v1/jobs").json()
    refused = message(post(api, content, kind, strict="true"))
    assert expected in refused
    assert "(strict: nothing was accepted)" in refused
    assert api.http.get("/v1/jobs").json() == before, "it leaves no job"


def test_a_json_body_may_say_itself_that_all_rows_must_be_good(api: Service) -> None:
    body = {"input": ["good", ""], "strict": True}
    assert "text 1 is empty" in message(api.http.post("/v1/jobs", json=body))


def test_a_form_may_say_that_all_rows_must_be_good(api: Service) -> None:
    sent: dict[str, Any] = {"files": {"file": ("rows.jsonl", b'"good"\noops\n')}}
    good, bad = results(api, api.http.post("/v1/jobs", **sent))
    assert (good["index"], bad["outcome"]) == (0, "failed")
    assert "row 2: not JSON" in message(api.http.post("/v1/jobs", data={"strict": "true"}, **sent))


def test_an_estimate_counts_bad_rows_or_is_refused_for_them(api: Service) -> None:
    def estimate(**params: Any) -> httpx.Response:
        content = b'{"text": "good"}\noops\n'
        return api.http.post("/v1/jobs/estimate", content=content, headers={"content-type": NDJSON}, params=params)

    assert (estimate().json()["texts"], estimate().json()["failed"]) == (2, 1)
    assert "line 2: not JSON" in message(estimate(strict="true"))


@pytest.mark.parametrize("strict", ["false", "true"])
def test_a_refused_body_leaves_no_job_behind(api: Service, strict: str) -> None:
    before = api.http.get("/v1/jobs").json()
    for content, kind in (
        (b'{"input": [{"body": "a"}]}', "application/json"),
        (b'{"body": "a"}\n' * 10_000, NDJSON),
        (b"body\na\n", "text/csv"),
        (as_parquet([{"body": "a"}]), "application/x-parquet"),
        (b"", NDJSON),
    ):
        message(post(api, content, kind, strict=strict))
    assert api.http.get("/v1/jobs").json() == before


def test_a_cell_without_a_text_fails_alone(api: Service) -> None:
    table = as_parquet([{"id": 1, "text": "a cell"}, {"id": 2, "text": None}])
    good, bad = results(api, post(api, table, "application/x-parquet"))
    assert "error" not in good
    assert (bad["id"], bad["error"]["message"]) == (2, 'row 2: "text" is null; each row must be {"text": "…"}')


@pytest.mark.parametrize("name", ["rows", "rows.xlsx", "rows.gz", "rows.parquet.gz", "rows." + "x" * 300, ""])
def test_the_name_of_a_file_shows_its_format(api: Service, name: str) -> None:
    boundary = f'--b\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\n\r\nx\r\n--b--\r\n'
    text = message(post(api, boundary.encode(), "multipart/form-data; boundary=b"))
    assert ("the name must end in .jsonl" in text) or (not name and "the form has no file" in text)


def test_a_form_has_one_file(api: Service) -> None:
    two = [("file", ("a.txt", b"a")), ("file", ("b.txt", b"b"))]
    assert "not valid multipart/form-data" in message(api.http.post("/v1/jobs", files=two))


def test_a_refused_body_leaves_no_file_behind(api: Service) -> None:
    post(api, b"not parquet", "application/x-parquet")
    api.http.post("/v1/jobs", files={"file": ("x.csv", b"a\nb\n")})
    folder = api.services.settings.home / "files"
    assert [path.name for path in folder.iterdir()] == []
