"""Some hundred damaged bodies with each run of the tests; `make fuzz` sends them for as long as one likes."""

from itertools import islice
from pathlib import Path

import httpx

from tests.fuzz.bodies import accepted
from tests.fuzz.run import damaged_cases, fuzz
from tests.support.processes import KINDS_TOML, processes


def test_damaged_bodies_are_refused_and_the_api_stays_up(tmp_path: Path) -> None:
    with processes(tmp_path, toml=KINDS_TOML, model="fail_on=poison&max_tokens=20") as semel:
        for case in accepted():
            answer = httpx.request(
                case.method, semel.url + case.path, content=case.body, headers={"content-type": case.kind}
            )
            known = (200, 202) if case.path != "/v1/batches" else (404,)
            if not case.path.startswith("/v1/cache/vectors"):  # those are of no model
                assert answer.status_code in known, f"{case.path}, {case.kind}: {answer.text}"
        result = fuzz(semel, islice(damaged_cases(seed=7), 400))
    assert not result.problems, "\n".join(result.problems)
    assert result.answers.total() == 400
    assert {200, 202, 400} <= result.answers.keys()
