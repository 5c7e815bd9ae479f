"""Finds the text that ends the workers which compute it, so that only this one fails."""

import threading
from collections.abc import Mapping

from semel.tasks.jobs.chunks import ChunkStore
from semel.tasks.jobs.rows import WORKER_LOST, ChunkWork
from semel.tasks.jobs.sweep import STARTS_ALONE
from semel.tasks.worker.embed import Embedder, LoadedModel, Terms
from semel.values.text import Input, ItemError
from semel.values.vectors import Computed


class Suspects:
    """Computes chunks that may have killed a worker, text by text (ADR 26)."""

    def __init__(self, chunks: ChunkStore, embedder: Embedder) -> None:
        self._chunks = chunks
        self._embedder = embedder
        self._one_at_a_time = threading.Lock()

    def compute(
        self, model: LoadedModel, work: ChunkWork, missing: Mapping[bytes, Input], done: Computed, terms: Terms
    ) -> None:
        """Compute the missing texts of a chunk, each alone, as `Embedder.compute` does.

        A text is on record while it is computed. One that was on record at the end of `STARTS_ALONE` workers fails.

        Args:
            missing: key → text.
            done: receives the outcomes.
        """
        suspected = None if work.suspect is None else work.keys[work.suspect]
        for key in sorted(missing, key=lambda key: key != suspected):  # first: others would take its place on record
            places = [i for i, other in enumerate(work.keys) if other == key]
            with self._one_at_a_time:  # or the death that one text causes would count against another
                starts = self._chunks.start_alone(work, places[0])
                if starts <= STARTS_ALONE:
                    alone = {key: missing[key]}
                    self._embedder.compute(model, work.prompt_name, alone, lane=work.lane, terms=terms, into=done)
                    continue
            error = ItemError(WORKER_LOST, f"{starts} workers died while they worked on this text")
            self._chunks.blame(work, places, error)
            done.fail(key, error)
