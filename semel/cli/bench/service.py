"""The whole service on one device: requests at once, the cache, jobs of one text, and a worker that is killed."""

import http.client
import json
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from semel.cli.bench.figures import Figure
from semel.cli.bench.limits import sqlite_rows_per_s
from semel.cli.bench.rounds import durations_s, figures, in_rounds, new_texts, percentiles_ms
from semel.cli.work.stack import Stack, running_stack
from semel.errors import UnavailableError

AT_ONCE = (1, 5, 10, 20)
"""Clients that each have one request under way."""

_IN_ONE = 64
"""Texts in one request, for the cache."""

_PRODUCERS = 16
"""Clients that submit jobs of one text."""

_PAUSE_S = 0.05
"""Before a request that was refused is sent again, or a job is looked at again."""

_TIMEOUT_S = 60.0

_RECOVERED_S = 60.0
"""A killed worker must serve again after this."""


class Connection:
    """A kept connection of one client; it costs less than what it measures. Not thread-safe."""

    def __init__(self, url: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout_s)

    def post(self, path: str, body: object) -> Any:
        """The answer to a request, which is sent again while the service has too much work. Raises UnavailableError."""
        content = json.dumps(body).encode()
        while True:
            status, answer = self._ask("POST", path, content)
            if status != http.client.TOO_MANY_REQUESTS:
                return _checked(status, answer)
            time.sleep(_PAUSE_S)

    def get(self, path: str) -> Any:
        """The answer to a request. Raises UnavailableError."""
        return _checked(*self._ask("GET", path, None))

    def _ask(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        try:
            self._connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise UnavailableError(f"the service does not answer: {error}") from error

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _checked(status: int, answer: bytes) -> Any:
    if status >= http.client.BAD_REQUEST:
        raise UnavailableError(f"the service answers {status}: {answer[:200].decode(errors='replace')}")
    return json.loads(answer)


class Service:
    """A service that runs for this measurement.

    Args:
        model: one that embeds.
    """

    def __init__(self, stack: Stack, url: str, *, model: str) -> None:
        self._stack = stack
        self._url = url
        self._model = model

    def embed(self, connection: Connection, texts: Sequence[str]) -> None:
        """Have texts embedded."""
        connection.post("/v1/embeddings", {"model": self._model, "input": list(texts), "encoding_format": "base64"})

    def at_once(self, clients: int, seconds: float) -> dict[str, float]:
        """Requests of one new text per second, and their latency."""
        spent: list[list[float]] = [[] for _ in range(clients)]

        def ask(connection: Connection, number: int) -> None:
            spent[number] = durations_s(lambda: self.embed(connection, new_texts(1)), seconds)

        took_s = self._clients(clients, ask)
        every = [each for of_one in spent for each in of_one]
        return {f"{clients} at once": len(every) / took_s, **percentiles_ms(every, (50, 95), f"{clients} at once, ")}

    def cache(self, known: int, name: str, seconds: float) -> dict[str, float]:
        """Texts per second in requests of which `known` texts are in the cache."""
        connection = Connection(self._url)
        kept = new_texts(known)
        if kept:
            self.embed(connection, kept)
        spent = durations_s(lambda: self.embed(connection, [*kept, *new_texts(_IN_ONE - known)]), seconds)
        connection.close()
        return {name: _IN_ONE * len(spent) / sum(spent)}

    def jobs(self, seconds: float) -> dict[str, float]:
        """Jobs of one text per second: submitted, and completed."""
        started, ended_at, ids = time.perf_counter(), [0.0] * _PRODUCERS, count()

        def produce(connection: Connection, number: int) -> None:
            mine: list[str] = []

            def submit() -> None:
                mine.append(connection.post("/v1/jobs", {"model": self._model, "input": new_texts(1)})["id"])
                next(ids)

            durations_s(submit, seconds)
            ended_at[number] = time.perf_counter()
            for job in mine:
                while connection.get(f"/v1/jobs/{job}")["status"] not in ("completed", "failed"):
                    time.sleep(_PAUSE_S)

        took_s = self._clients(_PRODUCERS, produce)
        total = next(ids)
        return {"submitted": total / (max(ended_at) - started), "completed": total / took_s}

    def recovery_s(self, part: str) -> float:
        """Seconds from the death of the worker until a new text is served. Raises UnavailableError if it is not."""
        started = time.perf_counter()
        self._stack.kill(part)
        while (spent_s := time.perf_counter() - started) < _RECOVERED_S:
            self._stack.watch()
            connection = Connection(self._url, timeout_s=5)
            try:
                self.embed(connection, new_texts(1))
                return time.perf_counter() - started
            except UnavailableError:
                time.sleep(_PAUSE_S)
            finally:
                connection.close()
        raise UnavailableError(f"{spent_s:.0f} s after a worker was killed, no new text was served")

    def _clients(self, number: int, work: Callable[[Connection, int], None]) -> float:
        """Run clients with a connection each; returns the seconds until the last one has ended. Raises their error."""
        errors: list[Exception] = []

        def run(place: int) -> None:
            connection = Connection(self._url)
            try:
                work(connection, place)
            except Exception as error:  # noqa: BLE001  # raised again below
                errors.append(error)
            finally:
                connection.close()

        threads = [threading.Thread(target=run, args=(place,)) for place in range(number)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return time.perf_counter() - started


def measure_service(
    device: str, model: str, *, config: str, seconds: float, rounds: int, done: Callable[[float], None]
) -> list[Figure]:
    """Run a service in a new folder, and measure it.

    Args:
        model: one that embeds.
        config: the content of its semel.toml.
        done: called with the share of the work that has ended.

    Raises:
        UnavailableError: the service does not start, or fails.
    """
    with tempfile.TemporaryDirectory() as home, running_stack(Path(home), config=config, device=device) as (stack, url):
        service = Service(stack, url, model=model)
        connection = Connection(url)
        service.embed(connection, new_texts(1))
        connection.close()
        measurements: list[Callable[[float], dict[str, float]]] = [partial(service.at_once, n) for n in AT_ONCE]
        for name, known in (("cold", 0), ("half of the texts known", _IN_ONE // 2), ("warm", _IN_ONE)):
            measurements.append(partial(service.cache, known, name))
        measurements.append(service.jobs)
        total = rounds * len(measurements)
        found = in_rounds(measurements, seconds=seconds, rounds=rounds, done=lambda ended: done(ended / total))
        recovery_s = service.recovery_s(f"worker {device}")
    return _figures(found, recovery_s, device=device, model=model)


def _figures(found: dict[str, list[float]], recovery_s: float, *, device: str, model: str) -> list[Figure]:
    stored, read = sqlite_rows_per_s()
    at_once = [f"{number} at once" for number in AT_ONCE]
    rates = figures(
        "requests",
        {name: found.pop(name) for name in at_once},
        device=device,
        model=model,
        unit="requests/s",
        higher=True,
    )
    times = {name: found.pop(name) for name in list(found) if "at once" in name}
    jobs = {name: found.pop(name) for name in ("submitted", "completed")}
    return [
        *rates,
        *figures("requests", times, device=device, model=model, unit="ms"),
        *(
            Figure("cache", name, device, model, "texts/s", values, True, limit, limit_name)
            for name, values in found.items()
            for limit, limit_name in [(read, "sqlite3 reads") if name == "warm" else (stored, "sqlite3 stores")]
        ),
        *figures("jobs of one text", jobs, device=device, model=model, unit="jobs/s", higher=True),
        Figure("a killed worker", "until a new text is served", device, model, "s", [recovery_s]),
    ]
