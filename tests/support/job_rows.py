"""Short ways to bring jobs and chunks into a state, for tests of what happens next."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Table, select, update

from semel.cache.keys import input_keys
from semel.cache.store import VectorStore
from semel.db import Database
from semel.tasks.jobs.rows import ChunkWork, NewChunk
from semel.tasks.jobs.schema import chunks, jobs
from semel.values.job import Job
from semel.values.model import Space
from semel.values.text import ItemError, Lane, Outcome
from tests.support.jobs import Jobs
from tests.support.values import space

T = TypeVar("T")

SPACE = space()

BROKEN = ItemError("backend_error", "the device failed")
"""A temporary error, which a retry may resolve."""


def new_chunk(first: int, *texts: str, errors: Mapping[int, ItemError] | None = None) -> NewChunk:
    return NewChunk(first, input_keys(SPACE.fingerprint, texts), list(texts), dict(errors or {}))


def create(jobs: Jobs, *, into: Space = SPACE, device: str = "cpu", lane: Lane = Lane.BULK, **options: Any) -> Job:
    """Create a job without texts."""
    return jobs.add(into, lane=lane, device=device, why="test", truncate=options.pop("truncate", True), **options)


def submit(jobs: Jobs, store: VectorStore, *texts: Sequence[str], **options: Any) -> Job:
    """Submit a complete job with one chunk for each list of texts; a string is a list of one-letter texts."""
    job = create(jobs, **options)
    first = 0
    for part in texts:
        jobs.add_chunks(job, [new_chunk(first, *part)], lookup=store.lookup_on)
        first += len(part)
    return jobs.seal(job.id)


def lease(jobs: Jobs, job: Job, position: int = 0, *, owner: str = "w", ttl_s: float = 60) -> ChunkWork:
    """Lease a chunk to a worker; a negative `ttl_s` stands for a worker that is dead already."""
    work = jobs.lease_one(job.id, position, owner=owner, ttl_s=ttl_s)
    assert work is not None
    return work


def finish(jobs: Jobs, work: ChunkWork, *, failed: Mapping[int, ItemError] | None = None) -> bool:
    """Finish a chunk: every text is computed except the failed ones."""
    errors = {**work.errors, **(failed or {})}
    outcomes = [Outcome.FAILED if i in errors else Outcome.COMPUTED for i in range(len(work.keys))]
    return jobs.finish_one(work, outcomes, errors, truncated=0, tokens=3 * len(work.keys))


def states(db: Database, job: Job) -> list[str]:
    """The states of the chunks of a job, by position."""
    query = select(chunks.c.state).where(chunks.c.job_id == job.id).order_by(chunks.c.position)
    with db.read() as conn:
        return list(conn.execute(query).scalars())


def job_row(db: Database, job: Job) -> Any:
    """The row of a job, with the columns that `Job` lacks."""
    with db.read() as conn:
        return conn.execute(select(jobs).where(jobs.c.id == job.id)).one()


def all_pages(read: Callable[[T | None], list[T]]) -> list[T]:
    """Every item of a list that is read page by page; `read` receives the last item of the previous page.

    It reads at most 20 pages, so that a list that repeats itself fails a test and does not hang it.
    """
    items: list[T] = []
    for _ in range(20):
        page = read(items[-1] if items else None)
        if not page:
            break
        items += page
    return items


def change(db: Database, table: Table, **values: Any) -> None:
    """Change every row of a table."""
    with db.write() as conn:
        conn.execute(update(table).values(values))
