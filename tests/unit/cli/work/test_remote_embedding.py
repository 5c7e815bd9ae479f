"""Embedding through a server: the ticket of an interrupted run, the digest of the texts, and rows in their places."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semel.cli.work.embedding import EmbedOptions, embed_local
from semel.cli.work.remote_embedding import _TextsDigest, _Ticket, embed_remote
from semel.client import Client
from semel.errors import BadInputError, SemelError, UnavailableError
from semel.settings import Settings, load_settings
from semel.values.text import ItemError
from tests.support.service import Service


@pytest.fixture
def options(folder: Path) -> EmbedOptions:
    """A command on three texts that no other test uses."""
    (folder / "in.txt").write_text("".join(f"{os.urandom(4).hex()} {i}\n" for i in range(3)))
    return EmbedOptions(
        folder / "in.txt",
        folder / "out.npy",
        model=None,
        device="auto",
        text_field="text",
        prompt_name="",
        input_type="document",
        strict=False,
        truncate=True,
    )


@pytest.fixture
def settings(server: Service) -> Settings:
    """Settings that name the API in this process."""
    return load_settings(url="http://127.0.0.1:1")


def job_count(server: Service) -> int:
    return len(server.services.stores.jobs.list_jobs(limit=100))


def ticket_path(options: EmbedOptions) -> Path:
    return options.output.with_name(options.output.name + ".job")


@pytest.fixture
def interrupted(settings: Settings, options: EmbedOptions, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a job that Ctrl-C left running."""

    def press_ctrl_c(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr(Client, "wait", press_ctrl_c)
        with pytest.raises(BadInputError):
            embed_remote(settings, options)
    job: str = json.loads(ticket_path(options).read_text())["job"]
    return job


def test_the_server_and_this_process_write_the_same_file(settings: Settings, options: EmbedOptions) -> None:
    there = embed_remote(settings, options)
    rows = np.load(options.output)
    here = embed_local(settings, options)
    assert (there.texts, there.counts()) == (here.texts, here.counts())
    np.testing.assert_array_equal(np.load(options.output), rows)


def test_a_finished_run_leaves_no_ticket(settings: Settings, options: EmbedOptions) -> None:
    embed_remote(settings, options)
    assert options.output.exists()
    assert not ticket_path(options).exists()


def test_ctrl_c_says_how_to_go_on(settings: Settings, options: EmbedOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    def press_ctrl_c(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "wait", press_ctrl_c)
    with pytest.raises(BadInputError) as caught:
        embed_remote(settings, options)
    job = json.loads(ticket_path(options).read_text())["job"]
    assert str(caught.value) == (
        f"stopped waiting, but job {job} continues: run the same command again to fetch its results, or "
        f"'semel jobs cancel {job}' to end it"
    )
    assert not options.output.exists()


def test_the_same_command_fetches_the_results_of_the_job(
    server: Service, settings: Settings, options: EmbedOptions, interrupted: str
) -> None:
    before = job_count(server)
    summary = embed_remote(settings, options)
    assert job_count(server) == before
    assert summary.texts == 3
    assert not ticket_path(options).exists()


def test_another_command_starts_a_job_of_its_own(
    server: Service, settings: Settings, options: EmbedOptions, interrupted: str
) -> None:
    before = job_count(server)
    embed_remote(settings, replace(options, truncate=False))
    assert job_count(server) == before + 1


def test_a_changed_input_starts_a_new_job(
    server: Service, settings: Settings, options: EmbedOptions, interrupted: str
) -> None:
    before = job_count(server)
    with options.source.open("a") as file:
        file.write("one more text\n")
    assert embed_remote(settings, options).texts == 4
    assert job_count(server) == before + 1


def test_a_job_that_was_cancelled_is_not_taken_up(
    server: Service, settings: Settings, options: EmbedOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.worker.paused = True
    with Client("http://any") as client:
        job = client.cancel(client.submit(["never computed"]).id)
        server.worker.paused = False
        _Ticket(options).write(job.id, "digest")
        assert _Ticket(options).find_job(client) is None
    assert embed_remote(settings, options).texts == 3


@pytest.mark.parametrize(
    "content",
    ["", "no JSON", "{}", "[]", "null", '{"job": "job_x"}', '{"identity": "another", "job": "job_x", "digest": ""}'],
)
def test_a_ticket_that_cannot_be_read_is_ignored(settings: Settings, options: EmbedOptions, content: str) -> None:
    ticket_path(options).write_text(content)
    assert embed_remote(settings, options).texts == 3


def test_a_ticket_of_a_job_that_is_gone_is_ignored(settings: Settings, options: EmbedOptions) -> None:
    _Ticket(options).write("job_gone", "digest")
    assert embed_remote(settings, options).texts == 3


def test_vectors_of_other_texts_are_not_written(settings: Settings, options: EmbedOptions, interrupted: str) -> None:
    _Ticket(options).write(interrupted, "digest of other texts")
    with pytest.raises(BadInputError, match="the input changed while its job ran"):
        embed_remote(settings, options)
    assert not options.output.exists()


@pytest.mark.parametrize("lines", [["a"], ["a", "b", "c", "d"], []])
def test_more_or_fewer_texts_than_were_sent_are_noticed(
    settings: Settings, options: EmbedOptions, interrupted: str, lines: list[str]
) -> None:
    status = options.source.stat()
    digest = json.loads(ticket_path(options).read_text())["digest"]
    options.source.write_text("".join(f"{line}\n" for line in lines))
    os.utime(options.source, ns=(status.st_atime_ns, status.st_mtime_ns))
    _Ticket(options).write(interrupted, digest)
    with pytest.raises(BadInputError, match="the input changed while its job ran"):
        embed_remote(settings, options)
    assert not options.output.exists()


def test_a_job_that_failed_is_an_error_with_its_reason(
    server: Service, settings: Settings, options: EmbedOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.worker.paused = True
    wait = Client.wait

    def fail_first(client: Client, job_id: str, **more: Any) -> Any:
        server.services.stores.jobs.fail(job_id, ItemError("no_worker", "no worker serves fake"))
        return wait(client, job_id, **more)

    monkeypatch.setattr(Client, "wait", fail_first)
    with pytest.raises(SemelError, match="ended as failed: no worker serves"):
        embed_remote(settings, options)
    assert not options.output.exists()
    assert not ticket_path(options).exists(), "the next run starts a new job"


def test_rows_keep_their_places_around_inputs_without_text(settings: Settings, options: EmbedOptions) -> None:
    options.source.write_text("\nfirst text\n\n\nsecond text\na poison\n\n")
    jsonl = replace(options, output=options.output.with_suffix(".jsonl"))
    summary = embed_remote(settings, jsonl)
    lines = [json.loads(line) for line in jsonl.output.read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(7))
    assert [line["text"] for line in lines if "embedding" in line] == ["first text", "second text"]
    assert summary.counts().failed == 5


def test_an_input_with_no_readable_text_has_a_row_for_each(settings: Settings, options: EmbedOptions) -> None:
    options.source.write_text("first\n" + "\n" * 4)
    jsonl = replace(options, output=options.output.with_suffix(".jsonl"))
    assert embed_remote(settings, jsonl).texts == 5


def test_results_that_end_early_leave_no_file(
    settings: Settings, options: EmbedOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Client.results_stream

    @contextmanager
    def cut(client: Client, job_id: str, *, fmt: str) -> Iterator[Iterator[bytes]]:
        with whole(client, job_id, fmt=fmt) as parts:
            yield iter([b"".join(parts)[:-300]])

    monkeypatch.setattr(Client, "results_stream", cut)
    with pytest.raises(UnavailableError, match="ended early"):
        embed_remote(settings, options)
    assert not options.output.exists()


def test_the_digest_depends_on_order_and_on_borders() -> None:
    def digest(*texts: str) -> str:
        made = _TextsDigest()
        assert [made.add(text) for text in texts] == list(texts)
        return made.hex()

    different = {digest("ab", "c"), digest("a", "bc"), digest("c", "ab"), digest("abc"), digest(), digest("")}
    assert len(different) == 6
    assert digest("ab", "c") == digest("ab", "c")
