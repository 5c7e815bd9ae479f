"""Requests that wait for workers: they hold no thread, and their work ends when their client goes."""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.requests import ClientDisconnect

from semel.api.edge.joint_steps import JointSteps
from semel.api.edge.waiting import reading_texts, take_steps
from semel.errors import BackendError, OverloadedError, SemelError, TimedOutError
from semel.steps import Missing, Steps
from semel.tasks.queue.message import Answer
from semel.values.model import Space
from semel.values.text import Input, Lane, Outcome
from semel.values.vectors import Computed
from tests.support.service import service
from tests.support.values import space

SOON_S = 5.0
"""More than anything here takes; a test that waits this long has failed."""

SPACE = space()


@dataclass
class Texts:
    """Texts that a worker computes; stands in for `Sent`."""

    names: list[str]
    parts: list["Future[Answer]"]
    error: SemelError | None = None

    @property
    def answers(self) -> list["Future[Answer]"]:
        return self.parts

    def result(self) -> Computed:
        assert all(part.done() for part in self.parts), "a thread would wait here"
        for part in self.parts:
            part.result()
        return Computed({name.encode(): Outcome.COMPUTED for name in self.names})


@dataclass
class Workers:
    """The workers behind the queue: the test answers. Stands in for `QueueSender`.

    Attributes:
        parts: messages that a request travels in.
        at_once: answer without waiting.
        refusals: raised instead of sending, one by one.
    """

    parts: int = 1
    at_once: bool = False
    refusals: list[SemelError] = field(default_factory=list)
    sent: list[Texts] = field(default_factory=list)
    dropped: list[Texts] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def begin(self, space: Space, missing: Mapping[bytes, Input], *, lane: Lane) -> Texts:
        self.threads.add(threading.get_ident())
        if self.refusals:
            raise self.refusals.pop(0)
        made = Texts([str(text) for text in missing.values()], [Future() for _ in range(self.parts)])
        for part in made.parts:
            part.set_running_or_notify_cancel()
            if self.at_once:
                part.set_result(Answer())
        self.sent.append(made)
        return made

    def drop(self, sent: Texts) -> None:
        self.dropped.append(sent)

    def answer(self, sent: Texts) -> None:
        for part in sent.parts:
            part.set_result(Answer())


def stop(*names: str) -> Missing:
    return Missing(SPACE, {name.encode(): name for name in names}, Lane.INTERACTIVE)


class Api:
    """An application with one route for each kind of request, and clients that may go away."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers
        self.app = FastAPI()
        self.app.state.services = SimpleNamespace(fleet=SimpleNamespace(sender=workers))
        self.app.state.joint_steps = JointSteps(workers)  # type: ignore[arg-type]
        self.app.get("/miss/{name}")(self._miss)
        self.app.get("/hit")(self._hit)

    async def _miss(self, request: Request, name: str, stops: int = 1) -> list[str]:
        return await take_steps(request, self._steps(name, stops))

    def _steps(self, name: str, stops: int) -> Steps[list[str]]:
        done: list[str] = []
        for i in range(stops):
            try:
                done += [key.decode() for key in (yield stop(f"{name} {i}")).outcomes]
            except BackendError as error:
                done.append(f"error: {error}")
        return done

    async def _hit(self, request: Request) -> str:
        return await take_steps(request, self._no_stop())

    def _no_stop(self) -> Steps[str]:
        return "hit"
        yield stop()

    async def get(self, path: str, *, gone: asyncio.Event | None = None) -> tuple[int, bytes]:
        """Status and body of an answer, to a client that goes when `gone` is set."""
        return await ask(self.app, "GET", path, gone=gone)


async def ask(
    app: Any, method: str, path: str, *, body: bytes = b"", gone: asyncio.Event | None = None
) -> tuple[int, bytes]:
    """Status and body of an answer, to a client that closes its connection when `gone` is set."""
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    bodies = [{"type": "http.request", "body": body, "more_body": False}]
    messages: list[Any] = []

    async def receive() -> Any:
        if bodies:
            return bodies.pop()
        await (gone or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        messages.append(message)

    await app(scope, receive, send)
    return messages[0]["status"], b"".join(message.get("body", b"") for message in messages)


@pytest.fixture
def workers() -> Workers:
    return Workers()


@pytest.fixture
def api(workers: Workers) -> Api:
    return Api(workers)


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, "not true in time"
        await asyncio.sleep(0.001)


def test_steps_without_a_stop_are_answered(api: Api, workers: Workers) -> None:
    assert asyncio.run(api.get("/hit")) == (200, b'"hit"')
    assert workers.sent == []


def test_steps_go_on_when_their_texts_are_answered(api: Api, workers: Workers) -> None:
    async def run() -> tuple[int, bytes]:
        answer = asyncio.create_task(api.get("/miss/a?stops=2"))
        for i in range(2):
            await until(partial(lambda count: len(workers.sent) == count, i + 1))
            assert not answer.done()
            workers.answer(workers.sent[i])
        return await answer

    assert asyncio.run(run()) == (200, b'["a 0","a 1"]')
    assert workers.dropped == []


def test_texts_that_are_answered_before_anyone_waits_are_not_missed(api: Api, workers: Workers) -> None:
    workers.at_once = True
    assert asyncio.run(api.get("/miss/a?stops=3")) == (200, b'["a 0","a 1","a 2"]')


def test_every_message_of_a_request_must_be_answered(api: Api, workers: Workers) -> None:
    workers.parts = 3

    async def run() -> tuple[int, bytes]:
        answer = asyncio.create_task(api.get("/miss/a"))
        await until(lambda: workers.sent)
        first, second, third = workers.sent[0].parts
        third.set_result(Answer())
        first.set_exception(BackendError("lost"))
        await asyncio.sleep(0.01)
        assert not answer.done()
        second.set_result(Answer())
        return await answer

    assert asyncio.run(run()) == (200, b'["error: lost"]')


def test_a_refusal_reaches_the_steps_which_may_go_on(api: Api, workers: Workers) -> None:
    workers.at_once = True
    workers.refusals = [BackendError("no device"), BackendError("still none")]
    assert asyncio.run(api.get("/miss/a?stops=3")) == (200, b'["error: no device","error: still none","a 2"]')


@pytest.mark.parametrize("error", [TimedOutError("late"), OverloadedError("full", retry_after_s=1.0)])
def test_an_error_that_the_steps_do_not_handle_is_that_of_the_request(
    api: Api, workers: Workers, error: SemelError
) -> None:
    workers.refusals = [error]
    with pytest.raises(type(error), match=str(error)):
        asyncio.run(api.get("/miss/a"))


def test_many_waiting_requests_hold_no_thread_and_hits_are_answered_meanwhile(api: Api, workers: Workers) -> None:
    async def run() -> list[tuple[int, bytes]]:
        waiting = [asyncio.create_task(api.get(f"/miss/{i}")) for i in range(200)]
        await until(lambda: len(workers.sent) == 200)
        assert await asyncio.wait_for(api.get("/hit"), SOON_S) == (200, b'"hit"')
        assert not any(answer.done() for answer in waiting)
        for sent in reversed(workers.sent):
            workers.answer(sent)
        return await asyncio.gather(*waiting)

    answers = asyncio.run(run())
    assert answers == [(200, f'["{i} 0"]'.encode()) for i in range(200)]
    assert len(workers.threads) <= 8


def test_a_client_that_goes_ends_its_request_and_drops_its_texts(api: Api, workers: Workers) -> None:
    async def run() -> None:
        gone = asyncio.Event()
        answer = asyncio.create_task(api.get("/miss/a?stops=2", gone=gone))
        stays = asyncio.create_task(api.get("/miss/b"))
        await until(lambda: len(workers.sent) == 2)
        gone.set()
        with pytest.raises(ClientDisconnect):
            await asyncio.wait_for(answer, SOON_S)
        assert [sent.names for sent in workers.dropped] == [["a 0"]]
        workers.answer(next(sent for sent in workers.sent if sent.names == ["b 0"]))
        assert (await stays)[0] == 200

    asyncio.run(run())
    assert len(workers.sent) == 2, "the second stop is never reached"


def test_a_client_that_has_gone_before_its_texts_are_sent_is_noticed_as_soon_as_it_waits(
    api: Api, workers: Workers
) -> None:
    async def run() -> None:
        gone = asyncio.Event()
        gone.set()
        with pytest.raises(ClientDisconnect):
            await asyncio.wait_for(api.get("/miss/a", gone=gone), SOON_S)

    asyncio.run(run())
    assert workers.dropped == workers.sent


def test_an_answer_that_arrives_after_its_client_has_gone_hurts_nobody(api: Api, workers: Workers) -> None:
    async def run() -> None:
        gone = asyncio.Event()
        answer = asyncio.create_task(api.get("/miss/a", gone=gone))
        await until(lambda: workers.sent)
        gone.set()
        with pytest.raises(ClientDisconnect):
            await answer
        workers.answer(workers.sent[0])
        await asyncio.sleep(0.01)

    asyncio.run(run())


def test_a_request_that_the_server_cancels_drops_its_texts(api: Api, workers: Workers) -> None:
    async def run() -> None:
        answer = asyncio.create_task(api.get("/miss/a"))
        await until(lambda: workers.sent)
        answer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answer

    asyncio.run(run())
    assert workers.dropped == workers.sent


def test_calls_that_wait_for_a_worker_leave_the_threads_of_the_steps_free(api: Api) -> None:
    async def run() -> None:
        go_on = threading.Event()
        calls = [asyncio.create_task(reading_texts(lambda: go_on.wait(SOON_S))) for _ in range(20)]
        await asyncio.sleep(0.01)
        assert await asyncio.wait_for(api.get("/hit"), SOON_S) == (200, b'"hit"')
        go_on.set()
        assert all(await asyncio.gather(*calls))

    asyncio.run(run())


def test_a_client_that_goes_is_known_to_the_worker(tmp_path: Any) -> None:
    """The same through every layer of the API, up to the mark in Redis that the worker reads."""
    with service(tmp_path) as running:
        running.worker.paused = True
        outbox = running.services.fleet.outbox

        async def run() -> int:
            gone = asyncio.Event()
            body = b'{"model": "fake", "input": "one"}'
            answer = asyncio.create_task(ask(running.app, "POST", "/v1/embeddings", body=body, gone=gone))
            await until(lambda: outbox.waiting() == {"cpu": 1} and running.worker.sent)
            gone.set()
            return (await asyncio.wait_for(answer, SOON_S))[0]

        assert asyncio.run(run()) == 499
        assert outbox.waiting() == {}
        (request,) = running.worker.sent[0][1][0]["requests"]
        deadline = time.monotonic() + SOON_S
        while running.redis.get(f"semel:request:{request['id']}") != b"g":
            assert time.monotonic() < deadline
            time.sleep(0.001)
