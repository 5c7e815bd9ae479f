"""Sends damaged bodies, and reports what must not happen."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import httpx
import psutil

from tests.fuzz.bodies import Case, accepted, damaged
from tests.support.processes import Processes

MOST_BYTES = 900e6
"""Memory of the API; it needs about 250 MB when it is idle, and pyarrow 100 more."""

_LONGEST_S = 20.0
_MOST_PROBLEMS = 20


@dataclass
class Result:
    """What the requests showed.

    Attributes:
        answers: requests by status.
        problems: the requests that must not happen, with their answers.
        bytes: the most memory that the API used.
    """

    answers: Counter[int] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    bytes: float = 0.0


def damaged_cases(seed: int) -> Iterator[Case]:
    """Damaged bodies for every route that reads one, without end; the same seed gives the same ones."""
    rng, cases = random.Random(seed), accepted()
    while True:
        yield damaged(rng.choice(cases), rng)


def fuzz(semel: Processes, cases: Iterable[Case]) -> Result:
    """Send the cases one after another, until they end or too much went wrong."""
    result, api = Result(), psutil.Process(semel.pid("api"))
    with httpx.Client(base_url=semel.url, timeout=_LONGEST_S) as client:
        for case in cases:
            _send(client, case, result)
            if semel.has_ended("api"):
                result.problems.append("then the API ended")
                return result
            result.bytes = max(result.bytes, api.memory_info().rss)
            if len(result.problems) >= _MOST_PROBLEMS:
                break
        live = client.get("/health/live").status_code
        served = client.post("/v1/embeddings", json={"model": "fake", "input": "after all"}).status_code
    if (live, served) != (200, 200):
        result.problems.append(f"at the end, /health/live answers {live} and a request {served}")
    if result.bytes > MOST_BYTES:
        result.problems.append(f"the API used {result.bytes / 1e6:,.0f} MB")
    return result


def _send(client: httpx.Client, case: Case, result: Result) -> None:
    what = f"{case.method} {case.path}, {case.kind or 'no Content-Type'}, {case.body[:300]!r}"
    headers = {"content-type": case.kind} if case.kind else {}
    try:
        answer = client.request(case.method, case.path, content=case.body, headers=headers)
    except httpx.TransportError as error:
        result.problems.append(f"{what}: {type(error).__name__}: {error}")
        return
    result.answers[answer.status_code] += 1
    if answer.status_code >= 500:
        result.problems.append(f"{what}: {answer.status_code} {answer.text[:300]}")
    elif len(answer.content) > 100 * len(case.body) + 100_000:
        result.problems.append(f"{what}: an answer of {len(answer.content)} bytes")
