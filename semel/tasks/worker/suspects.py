"""Finds the text that ends the workers which compute it, so that only this one fails."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from semel.tasks.jobs.chunks import ChunkStore
from semel.tasks.jobs.rows import WORKER_LOST, ChunkWork
from semel.tasks.jobs.sweep import STARTS_ALONE
from semel.tasks.worker.embed import Embedder, LoadedModel, Terms
from semel.values.text import Input, ItemError
from semel.values.vectors import Computed

_SLICE = 64
"""Texts computed together until one of them is suspected: alone, each would take much longer."""


class Suspects:
    """Computes chunks that may have killed a worker so that the culprit is found (ADR 26)."""

    def __init__(self, chunks: ChunkStore, embedder: Embedder) -> None:
        self._chunks = chunks
        self._embedder = embedder
        self._one_at_a_time = threading.Lock()

    @contextmanager
    def turn(self, work: ChunkWork) -> Iterator[None]:
        """Wait until no other chunk that may kill this worker is under way, and keep others waiting meanwhile.

        The end of the worker does not count against those that wait. A chunk that was never leased before is not
        suspected, and does not wait.
        """
        if work.attempts == 1:
            yield
            return
        with self._one_at_a_time:
            self._chunks.start_again(work)
            yield

    def compute(
        self, model: LoadedModel, work: ChunkWork, missing: Mapping[bytes, Input], done: Computed, terms: Terms
    ) -> None:
        """Compute the missing texts of a chunk some at a time, as `Embedder.compute` does.

        They are on record while they are computed. Those that were on record when a worker died are computed one by
        one; a text that was on record alone at the end of `STARTS_ALONE` workers fails.

        Args:
            missing: key → text.
            done: receives the outcomes.
        """
        places: dict[bytes, list[int]] = {}
        for i, key in enumerate(work.keys):
            if key in missing:
                places.setdefault(key, []).append(i)
        for part in _parts(work, places):
            texts = range(places[part[0]][0], places[part[-1]][0] + 1)
            starts = self._chunks.start_alone(work, texts)
            if len(texts) > 1 or starts <= STARTS_ALONE:
                alone = {key: missing[key] for key in part}
                self._embedder.compute(
                    model, work.prompt_name, alone, lane=work.lane, variant=work.variant, terms=terms, into=done
                )
                continue
            (key,) = part
            error = ItemError(WORKER_LOST, f"{starts - 1} workers died while they worked on this text alone")
            self._chunks.blame(work, places[key], error)
            done.fail(key, error)


def _parts(work: ChunkWork, places: Mapping[bytes, list[int]]) -> Iterator[list[bytes]]:
    """The keys to compute together: the suspects one by one, then the others in slices.

    The suspects come first: others would take their place on record.
    """
    suspects = [key for key, (first, *_) in places.items() if first in work.suspects]
    yield from ([key] for key in suspects)
    others = [key for key, (first, *_) in places.items() if first not in work.suspects]
    yield from (others[at : at + _SLICE] for at in range(0, len(others), _SLICE))
