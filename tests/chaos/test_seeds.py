"""A few fixed rounds of the campaign; `make chaos` runs as many as one likes."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from tests.chaos.campaign import Campaign
from tests.conftest import missing
from tests.support.databases import postgresql_database

ROUNDS = {"sqlite": (32, 34), "postgresql": (38, 39)}


@pytest.fixture(params=ROUNDS)
def campaign(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Campaign]]:
    with ExitStack() as stack:
        url = ""
        if request.param == "postgresql":
            try:
                url = stack.enter_context(postgresql_database())
            except psycopg.OperationalError as error:
                missing(f"PostgreSQL does not answer: {error}")
        campaign = Campaign(tmp_path, url)
        stack.callback(campaign.close)
        campaign.start()
        yield request.param, campaign


def test_nothing_is_lost_and_nothing_is_wrong(campaign: tuple[str, Campaign]) -> None:
    database, running = campaign
    for seed in ROUNDS[database]:
        report = running.round(seed)
        assert not report.problems, f"seed {seed}, {report.faults}: {report.problems}\n{running.semel.logs()}"
        assert report.rows > 2000
