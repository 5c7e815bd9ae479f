"""Where `semel sync` reads and writes: without a file, in S3, in an index that was hurt or is gone."""

from pathlib import Path

import boto3
import lancedb
import pytest
from moto.server import ThreadedMotoServer

from tests.support.handbook import Handbook


@pytest.fixture
def handbook(tmp_path: Path) -> Handbook:
    return Handbook(tmp_path)


def test_a_source_and_a_sink_need_no_file(handbook: Handbook) -> None:
    done = handbook.run("sync", "run", "docs", "parquet:./vectors/adhoc", "--model", "short", *handbook.where)
    assert "+3  ~0  −0 documents" in done.stderr
    found = handbook.run("search", "adhoc", "cats", "-k", "1").stdout
    assert "notes.txt#0" in found
    refused = handbook.run("sync", "run", "docs", *handbook.where, code=2)
    assert "'docs' is a source, and needs a sink" in refused.stderr


def test_a_repair_mends_the_index(handbook: Handbook) -> None:
    handbook.sync()
    table = lancedb.connect(handbook.folder / "index").open_table("handbook")
    rows = table.count_rows()
    table.delete("document = 'notes.txt'")
    broken = handbook.run("sync", "check", "handbook", code=3)
    assert "1 missing" in broken.stderr
    handbook.run("sync", "check", "handbook", "--repair", *handbook.where)
    assert lancedb.connect(handbook.folder / "index").open_table("handbook").count_rows() == rows
    assert handbook.search("cats")[0]["document"] == "notes.txt"


def test_an_index_whose_place_is_gone_can_be_forgotten(handbook: Handbook) -> None:
    handbook.sync()
    toml = handbook.folder / "semel.toml"
    toml.write_text(toml.read_text().replace("index/handbook", "elsewhere/handbook"))
    refused = handbook.run("sync", "run", "handbook", *handbook.where, code=2)
    assert "'semel sync drop handbook --forget' leaves its index as it is" in refused.stderr
    assert "forgot handbook_" in handbook.run("sync", "drop", "handbook", "--forget").stdout
    assert handbook.sync()["computed"] == 0
    assert (handbook.folder / "index" / "handbook.lance").exists()
    assert (handbook.folder / "elsewhere" / "handbook.lance").exists()


def test_a_reranker_orders_what_was_found(handbook: Handbook) -> None:
    handbook.sync()
    ranked = handbook.search("press the button", "-k", "3", "--rerank", "reranker")
    assert len(ranked) == 3
    assert ranked == sorted(ranked, key=lambda each: -float(str(each["score"])))
    assert ranked != handbook.search("press the button", "-k", "3")


def test_documents_in_s3_are_followed_by_their_tags(handbook: Handbook, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    secrets = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
    handbook.environment.update(secrets, AWS_ENDPOINT_URL=f"http://{host}:{port}")
    try:
        s3 = boto3.client(
            "s3", endpoint_url=f"http://{host}:{port}", aws_access_key_id="x", aws_secret_access_key="x",
            region_name="us-east-1",
        )  # fmt: skip
        s3.create_bucket(Bucket="docs")
        for name, text in {"a.md": "# A\n\nA submarine.", "deep/b.txt": "A cat.", "c.bin": "x"}.items():
            s3.put_object(Bucket="docs", Key=f"handbook/{name}", Body=text.encode())
        target = ["s3://docs/handbook", "parquet:./vectors/bucket", *handbook.where]
        assert "+2  ~0  −0 documents" in handbook.run("sync", "run", *target).stderr
        s3.put_object(Bucket="docs", Key="handbook/a.md", Body=b"# A\n\nA submarine.")
        assert "+0  ~0  −0 documents; 2 unchanged" in handbook.run("sync", "run", *target).stderr
        s3.put_object(Bucket="docs", Key="handbook/a.md", Body=b"# A\n\nA dog.")
        assert "+0  ~1  −0 documents; 1 unchanged" in handbook.run("sync", "run", *target).stderr
        gone = handbook.run("sync", "run", "s3://docs/nowhere", "parquet:./vectors/bucket", *handbook.where, code=2)
        assert "there is nothing at s3://docs/nowhere" in gone.stderr
    finally:
        server.stop()
