"""Half a minute of damaged bodies with each run of the tests; `make fuzz` sends them for as long as one likes."""

from pathlib import Path

import httpx

from tests.fuzz.bodies import accepted
from tests.fuzz.run import fuzz
from tests.support.processes import processes


def test_damaged_bodies_are_refused_and_the_api_stays_up(tmp_path: Path) -> None:
    with processes(tmp_path, model="fail_on=poison&max_tokens=20") as semel:
        for case in accepted():
            answer = httpx.request(
                case.method, semel.url + case.path, content=case.body, headers={"content-type": case.kind}
            )
            known = (200, 202) if case.path != "/v1/batches" else (404,)
            if not case.path.startswith("/v1/cache/vectors"):  # those are of no model
                assert answer.status_code in known, f"{case.path}, {case.kind}: {answer.text}"
        result = fuzz(semel, seconds=30, seed=7)
    assert not result.problems, "\n".join(result.problems)
    assert result.answers.total() > 300
    assert {200, 202, 400} <= result.answers.keys()
