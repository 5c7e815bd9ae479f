"""The helpers of the demo; `tests/unit/cli/commands/test_demo.py` runs the whole of it."""

import io

import numpy as np
import pytest
from rich.console import Console

from semel.cli.work.demonstration import QUESTIONS, Run, _ask, _changed, _run, _table
from semel.cli.work.docstrings import Docstring
from semel.client import Client
from semel.errors import SemelError
from semel.values.text import ItemError
from tests.support.service import Service


def test_two_percent_of_the_distinct_texts_change_in_every_place() -> None:
    texts = [f"text {i % 100}" for i in range(300)]
    changed = _changed(texts)
    places = [i for i in range(300) if changed[i] != texts[i]]
    assert {texts[i] for i in places} == {"text 0", "text 50"}
    assert len(places) == 6
    assert all(changed[i].startswith(texts[i]) for i in places)


def test_a_run_counts_what_became_of_its_texts(server: Service) -> None:
    with Client("http://any") as client:
        run = _run(client, "first time", ["demo a", "demo b", "demo a"])
    assert (run.label, run.distinct, run.job.counts.computed, run.job.metadata) == (
        "first time",
        2,
        2,
        {"demo": "first time"},
    )
    assert run.seconds > 0


def test_a_run_in_which_a_text_fails_is_an_error(server: Service) -> None:
    with Client("http://any") as client, pytest.raises(SemelError, match="ended as completed: 1 texts failed"):
        _run(client, "first time", ["fine", "a poison"])


def test_a_run_that_fails_is_an_error_with_its_reason(server: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    server.worker.paused = True
    submit = Client.submit

    def fail(client: Client, texts: list[str], **options: object) -> object:
        job = submit(client, texts, **options)  # type: ignore[arg-type]
        server.services.stores.jobs.fail(job.id, ItemError("no_worker", "no worker serves fake"))
        return job

    monkeypatch.setattr(Client, "submit", fail)
    with Client("http://any") as client, pytest.raises(SemelError, match="ended as failed: no worker serves fake"):
        _run(client, "first time", ["never computed by the demo"])


def test_the_table_has_a_row_for_each_run(server: Service) -> None:
    with Client("http://any") as client:
        runs = [_run(client, label, ["table a", "table b", "table a"]) for label in ("first time", "the same again")]
    out = io.StringIO()
    Console(file=out, width=100).print(_table([Run(run.label, run.job, run.distinct, 2.0) for run in runs]))
    rows = [line.split() for line in out.getvalue().splitlines()]
    assert ["first", "time", "3", "2", "2", "0", "1", "2.0", "2"] in rows
    assert ["the", "same", "again", "3", "2", "0", "3", "0", "2.0", "2"] in rows


def test_the_nearest_functions_answer_a_question(server: Service) -> None:
    with Client("http://any") as client:
        questions = client.embed(list(QUESTIONS))
        functions = [Docstring(f"pkg.answer_{i}", "text", is_function=True) for i in range(len(QUESTIONS))]
        others = [Docstring(f"pkg.other_{i}", "text", is_function=True) for i in range(4)]
        vectors = np.concatenate([-np.abs(np.ones((4, 16), np.float32)), questions])
        out = io.StringIO()
        _ask(Console(file=out, width=100), client, [*others, *functions], vectors)
    lines = out.getvalue().splitlines()
    for i, question in enumerate(QUESTIONS):
        best = lines[lines.index(question) + 1]
        assert best.split() == ["1.00", f"pkg.answer_{i}"]
        assert len(lines[lines.index(question) + 1 : lines.index(question) + 4]) == 3
