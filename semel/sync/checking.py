"""Whether an index is what the ledger and the cache say that it is."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import numpy as np

from semel.cache.store import VectorStore
from semel.errors import ConflictError
from semel.sync.document import chunk_id
from semel.sync.ledger import Collection, KnownDocument
from semel.sync.opened import OpenedSync
from semel.sync.sinks import SinkCollection, agree, vectors_of

DEFAULT_SAMPLE = 100
"""Vectors that a check compares."""

_AT_A_TIME = 500


@dataclass
class Checked:
    """What a check found.

    Attributes:
        collection: its name in the sink.
        documents, chunks: what the ledger has.
        unconfirmed: documents of a run that was interrupted; the next run writes them again.
        missing: chunks that the sink does not have.
        orphans: rows of the sink that belong to no document.
        compared: chunks whose vectors were compared with the cache.
        wrong: those of them that differ.
        not_cached: chunks that could not be compared, because the cache no longer has their vectors.
    """

    collection: str
    documents: int = 0
    chunks: int = 0
    unconfirmed: int = 0
    missing: int = 0
    orphans: int = 0
    compared: int = 0
    wrong: int = 0
    not_cached: int = 0

    @property
    def is_right(self) -> bool:
        """Whether nothing is missing, orphaned, wrong or unconfirmed."""
        return not (self.unconfirmed or self.missing or self.orphans or self.wrong)

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "is_right": self.is_right}

    def lines(self) -> list[str]:
        """For people."""
        cache = f" ({self.not_cached:,} more are not in the cache)" if self.not_cached else ""
        return [
            f"{self.collection}: {self.documents:,} documents, {self.chunks:,} chunks; {self.missing:,} missing, "
            f"{self.orphans:,} orphans, {self.unconfirmed:,} documents unconfirmed",
            f"{self.compared:,} vectors compared with the cache, {self.wrong:,} differ{cache}",
        ]


class Checker:
    """Compares a collection with the ledger, and some of its vectors with the cache.

    Args:
        store: the cache.
        sample: how many vectors are compared; None for all.
    """

    def __init__(self, opened: OpenedSync, collection: Collection, store: VectorStore, *, sample: int | None) -> None:
        self._opened = opened
        self._collection = collection
        self._store = store
        self._rows: SinkCollection = opened.open(collection)
        self._documents = opened.ledger.within(collection)
        self._sample = sample
        self.orphans: list[UUID] = []
        self.to_rewrite: dict[str, int] = {}

    def check(self) -> Checked:
        """Compare. Raises UnavailableError."""
        there = {each.bytes for ids, _ in self._rows.read() for each in ids}
        checked = Checked(self._collection.name)
        sampled: list[tuple[UUID, str, int, bytes]] = []
        seen = 0
        for document, number, key in self._chunks(checked):
            each = chunk_id(self._opened.name, document.id, number)
            if each.bytes not in there:
                if key is not None:
                    checked.missing += 1
                    self.to_rewrite[document.id] = document.most_chunks
                continue
            there.discard(each.bytes)
            if key is None:
                continue
            seen += 1
            place = (each, document.id, document.most_chunks, key)
            if self._sample is None or len(sampled) < self._sample:
                sampled.append(place)
            elif (at := random.randrange(seen)) < self._sample:  # noqa: S311  # a sample, no secret
                sampled[at] = place
            if self._sample is None and len(sampled) == _AT_A_TIME:
                self._compare(sampled, checked)
                sampled = []
        for at in range(0, len(sampled), _AT_A_TIME):
            self._compare(sampled[at : at + _AT_A_TIME], checked)
        self.orphans = [UUID(bytes=each) for each in there]
        checked.orphans = len(there)
        return checked

    def _chunks(self, checked: Checked) -> Iterator[tuple[KnownDocument, int, bytes | None]]:
        """Each chunk that the sink may have; its key is None if the sink need not have it."""
        for part in self._documents.all():
            for document in part:
                checked.documents += 1
                checked.chunks += document.count
                checked.unconfirmed += document.pending is not None
                keys = document.keys if document.pending is None else []
                for number in range(document.most_chunks):
                    yield document, number, keys[number] if number < len(keys) else None

    def _compare(self, sampled: Sequence[tuple[UUID, str, int, bytes]], checked: Checked) -> None:
        cached = self._store.get_many([key for *_, key in sampled], dim=self._collection.dim)
        assert cached.vectors is not None  # get_many returns vectors
        stored = vectors_of(self._rows, [each for each, *_ in sampled])
        both = [i for i, (each, *_) in enumerate(sampled) if cached.present[i] and each in stored]
        checked.not_cached += int((~cached.present).sum())
        if not both:
            return
        same = agree(self._rows.keeps, np.stack([stored[sampled[i][0]] for i in both]), cached.vectors[both])
        checked.compared += len(both)
        checked.wrong += int((~same).sum())
        for i, right in zip(both, same.tolist(), strict=True):
            if not right:
                self.to_rewrite[sampled[i][1]] = sampled[i][2]

    def repair(self) -> None:
        """Delete the orphans, and have the next run write again the documents of missing and wrong chunks."""
        self._rows.delete(self.orphans)
        self._rows.finish()
        self._documents.intend(self.to_rewrite)


def check_before_cutover(checked: Checked) -> None:
    """Raises ConflictError if a collection must not take the place of another one."""
    if not checked.is_right:
        raise ConflictError(
            f"{checked.collection} is not ready ({checked.missing:,} chunks missing, {checked.orphans:,} orphans, "
            f"{checked.wrong:,} of {checked.compared:,} vectors differ, {checked.unconfirmed:,} documents unconfirmed)"
            ": run the sync with its model again, or 'semel sync check --repair --collection "
            f"{checked.collection}'"
        )
