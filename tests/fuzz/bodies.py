"""Bodies that a route accepts, and how they are damaged."""

import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_STRANGE: list[Any] = [
    None, True, 0, -1, 2**63, 2**300, 1e308, "", "\x00", "a" * 3000, "poison", "漢字", [], [[]], {}, {"a": {"b": [1]}},
    [None], ["a", 1], "🙂", "../../etc", "file:///etc/passwd", [0] * 100, "NaN", {"text": None}, "\u2028",
]  # fmt: skip
"""Values that fields of requests do not expect."""

_PIECES = [
    b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\r\n\r\n", b'"', b"{", b"[", b"NaN", b"1e999", b"\\ud800", b"\x1a" * 9,
    b"PAR1", b"--x--", b",", b"\n", b"%00", b"9" * 400,
]  # fmt: skip
"""Bytes that parsers trip over."""


@dataclass(frozen=True)
class Case:
    """A request with a body."""

    method: str
    path: str
    kind: str
    body: bytes


def accepted() -> list[Case]:
    """A case for each route and format that reads a body."""
    rows = [{"id": i, "text": f"row {i}", "page": i, "tags": ["a", None], "at": {"x": 1.5}} for i in range(20)]
    vectors = [{"text": f"row {i}", "embedding": [0.25] * 16} for i in range(5)]
    csv = b"id,text,page\n" + b"".join(b'%d,"row ""%d""",7\n' % (i, i) for i in range(20))
    form = (
        b'--x\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n%b\r\n--x--\r\n'
    )
    documents: dict[str, dict[str, Any]] = {
        "/v1/embeddings": {"model": "fake", "input": ["a", "b"], "encoding_format": "base64", "dimensions": None},
        "/v2/embed": {"model": "fake", "texts": ["a"], "input_type": "clustering", "embedding_types": ["float"]},
        "/v1/rerank": {"model": "fake", "query": "q", "documents": ["a", {"text": "b"}], "top_n": 1},
        "/rerank": {"query": "q", "texts": ["a", "b"], "return_text": True},
        "/embed": {"inputs": ["a", "b"], "truncate": True, "normalize": True},
        "/similarity": {"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}},
        "/embed_sparse": {"model": "sparse", "inputs": ["a b", "c"], "truncate": True},
        "/predict": {"model": "labels", "inputs": [["a"], ["a", "b"]], "raw_scores": False},
        "/classify": {"model": "labels", "input": ["a", "b"], "use_activation": True},
        "/tokenize": {"inputs": "a b", "add_special_tokens": False},
        "/v1/jobs": {"model": "fake", "input": [*rows, "one"], "metadata": {"a": "b"}, "truncate": False},
        "/v1/jobs/estimate": {"input": rows},
        "/v1/batches": {"input_file_id": "file-none", "endpoint": "/v1/embeddings", "completion_window": "24h"},
        "/v1/cache/prune": {"max_bytes": 10**12, "dry_run": True},
    }
    as_json = "application/json"
    cases = [Case("POST", path, as_json, json.dumps(body).encode()) for path, body in documents.items()]
    for path in ("/v1/jobs", "/v1/jobs/estimate"):
        cases += [
            Case("POST", path, "application/x-ndjson", _lines(rows)),
            Case("POST", path, "text/csv", csv),
            Case("POST", path, "application/vnd.apache.parquet", _parquet(rows)),
            Case("POST", path, "multipart/form-data; boundary=x", form % (b"model", b"fake", csv)),
        ]
    return [
        *cases,
        Case("POST", "/v1/files", "multipart/form-data; boundary=x", form % (b"purpose", b"batch", csv)),
        Case("PUT", "/v1/cache/vectors?model=fake", "application/x-ndjson", _lines(vectors)),
        Case("PUT", "/v1/cache/vectors?model=fake", "application/vnd.apache.parquet", _parquet(vectors)),
    ]


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file, compression="zstd", row_group_size=8)
    return file.getvalue()


def damaged(case: Case, rng: random.Random) -> Case:
    """The case with a body that is wrong in one or several places."""
    body = case.body
    if case.kind == "application/json" and rng.random() < 0.6:
        body = json.dumps(_other(json.loads(body), rng)).encode()
    else:
        for _ in range(rng.randint(1, 4)):
            body = rng.choice(_WAYS)(body, rng)
    kind = rng.choice(["", "text/plain", "application/x-ndjson", "text/csv"]) if rng.random() < 0.03 else case.kind
    return Case(case.method, case.path, kind, body)


def _other(value: Any, rng: random.Random) -> Any:
    """The value with one part replaced, at any depth."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice(list(value))
        return {**value, name: _other(value[name], rng), **({"a stranger": 1} if rng.random() < 0.1 else {})}
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        return [*value[:at], _other(value[at], rng), *value[at + 1 :]]
    return rng.choice(_STRANGE)


def _flip(body: bytes, rng: random.Random) -> bytes:
    changed = bytearray(body)
    for _ in range(rng.randint(1, 8)):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _cut(body: bytes, rng: random.Random) -> bytes:
    start, stop = sorted(rng.randrange(len(body) + 1) for _ in range(2))
    return body[:start] + body[stop:]


def _repeat(body: bytes, rng: random.Random) -> bytes:
    start, stop = sorted(rng.randrange(len(body) + 1) for _ in range(2))
    return body[:start] + body[start:stop] * rng.randint(2, 20) + body[stop:]


def _insert(body: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(body) + 1)
    return body[:at] + rng.choice(_PIECES) + body[at:]


def _end(body: bytes, rng: random.Random) -> bytes:
    return body[: rng.randrange(len(body) + 1)]


_WAYS: list[Callable[[bytes, random.Random], bytes]] = [_flip, _cut, _repeat, _insert, _end]
