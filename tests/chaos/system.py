"""The system that a campaign hurts: Redis, APIs and workers, each with links of its own to Redis and the database."""

from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from typing_extensions import override

from tests.support.processes import Processes, wait_until
from tests.support.proxy import Link, Network

NOTICED_S = {"Redis": 11.0, "database": 25.0}
"""After this long, a part has noticed a connection that went silent, and made a new one."""


class System(Processes):
    """The processes of one semel, for faults.

    Args:
        folder: for its files.
        database_url: an empty PostgreSQL database; "" for SQLite.
        apis, workers: how many of them.
        toml: the content of semel.toml.
        settings: more environment variables.

    Attributes:
        apis, workers: the names of the parts; the first API is `api`.
        database_url: the database, past the links.
        links: the links of each part.
    """

    def __init__(
        self, folder: Path, database_url: str, *, apis: int, workers: int, toml: str, settings: dict[str, str]
    ) -> None:
        super().__init__(folder, toml=toml, settings=settings)
        self.apis = ("api", *(f"api {number}" for number in range(2, apis + 1)))
        self.workers = ("worker", *(f"worker {number}" for number in range(2, workers + 1)))
        self.database_url = database_url
        if database_url:
            self.environment["SEMEL_DATABASE_URL"] = database_url
        self._network = Network()
        self.links: dict[str, dict[str, Link]] = {}
        for part in (*self.apis, *self.workers):
            self._connect(part)

    def _connect(self, part: str) -> None:
        links = self.links[part] = {"Redis": self._network.link(self.redis_port)}
        self.own[part] = {"SEMEL_REDIS_URL": f"redis://127.0.0.1:{links['Redis'].port}/0"}
        if self.database_url:
            there = urlsplit(self.database_url)
            links["database"] = self._network.link(there.port or 5432)
            user = f"{there.username}@" if there.username else ""
            here = there._replace(netloc=f"{user}127.0.0.1:{links['database'].port}")
            self.own[part]["SEMEL_DATABASE_URL"] = here.geturl()

    def lose_connections(self, part: str, service: str) -> None:
        """Let a part's connections to a service go silent for ever, as when a firewall forgets them."""
        self.links[part][service].lose(noticed_s=NOTICED_S[service] if service == "database" else None)

    def start(self) -> None:
        """Start everything, and wait until all workers are there."""
        self.start_redis()
        for name in self.apis:
            self.start_api(name)
        for name in self.workers:
            self.start_worker(name)
        wait_until(lambda: self.live() == len(self.workers), timeout_s=90, detail=self.logs)

    def restart(self, part: str) -> None:
        """End a part as a deployment does, and start it again."""
        self.stop(part)
        if part in self.apis:
            self.start_api(part)
        else:
            self.start_worker(part)

    def live(self) -> int:
        """The number of workers that the API knows."""
        return sum(len(pool["workers"]) for pool in httpx.get(f"{self.url}/health/backends").json())

    @override
    def close(self) -> None:
        with ExitStack() as stack:
            stack.callback(self._network.close)
            super().close()
