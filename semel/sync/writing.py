"""The writes of a run, batch by batch, so that a crash at any moment repeats only writes that can be repeated.

embed → record the intention → upsert → verify → delete what is old → record what is there
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from semel.errors import BadInputError, UnavailableError
from semel.sync.document import Chunk, Document, Draft, Listed, chunk_id
from semel.sync.drafting import Drafter
from semel.sync.embedding import Embedding
from semel.sync.ledger import KnownDocument, Written
from semel.sync.ledger.documents import Documents
from semel.sync.report import Report
from semel.sync.sinks import Rows, SinkCollection, agree, vectors_of
from semel.sync.sources import Source
from semel.values.vectors import Vectors

_VERIFIED_ROWS = 16
"""Rows of each batch that are read back and compared with what was written."""

_DELETED_AT_A_TIME = 1000
"""Documents that are deleted in one batch."""


@dataclass
class _Batch:
    """What a batch writes.

    Attributes:
        drafts: the documents that are in step afterwards.
        known: id → what the ledger has of it.
        full, payload_only: document's position in `drafts` and number of each chunk to write, with and without vector.
        vectors: float32 (len(full), dim).
        failed: document → why it cannot be written.
        contents: document → the digest of its text, as planned.
        computed: texts that were not in the cache.
    """

    drafts: list[Draft] = field(default_factory=list)
    known: dict[str, KnownDocument] = field(default_factory=dict)
    full: list[tuple[int, int]] = field(default_factory=list)
    payload_only: list[tuple[int, int]] = field(default_factory=list)
    vectors: Vectors = field(default_factory=lambda: np.empty((0, 0), np.float32))
    failed: dict[str, str] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    computed: int = 0
    embedding_s: float = 0.0


class Writer:
    """Brings documents of one collection in step.

    Args:
        sync: its name, from which the ids of chunks are made.
        documents: the ledger's.
        rows: the sink's.
        embedding: makes vectors.
        source, drafter: read a document again that was edited since the plan.

    Attributes:
        failed_contents: the digests of the texts that were not written.
    """

    def __init__(
        self,
        sync: str,
        documents: Documents,
        rows: SinkCollection,
        embedding: Embedding,
        source: Source,
        drafter: Drafter,
    ) -> None:
        self._sync = sync
        self._documents = documents
        self._rows = rows
        self._embedding = embedding
        self._source = source
        self._drafter = drafter
        self.failed_contents: set[bytes] = set()

    def write(self, drafts: Iterator[Draft], report: Report, *, on_written: Callable[[], None]) -> None:
        """Write all drafts in order; while one batch is written, the next ones are embedded.

        Raises:
            ConflictError: the lease is lost.
            UnavailableError: the sink or the database does not answer, or the sink lost what it had confirmed.
            SemelError: nothing can be embedded.
        """
        under_way: deque[Future[_Batch]] = deque()
        pool = ThreadPoolExecutor(self._embedding.batches_under_way, thread_name_prefix="embed")
        try:
            for part in self._batches(drafts):
                under_way.append(pool.submit(self._embedded, part))
                if len(under_way) >= self._embedding.batches_under_way:
                    self._write(under_way.popleft().result(), report)
                    on_written()
            while under_way:
                self._write(under_way.popleft().result(), report)
                on_written()
        finally:
            for each in under_way:
                each.cancel()
            pool.shutdown()

    def _batches(self, drafts: Iterator[Draft]) -> Iterator[list[Draft]]:
        part: list[Draft] = []
        chunks = 0
        for draft in drafts:
            part.append(draft)
            chunks += len(draft.chunks)
            if chunks >= self._embedding.batch_chunks:
                yield part
                part, chunks = [], 0
        if part:
            yield part

    def _embedded(self, drafts: Sequence[Draft]) -> _Batch:
        """The batch of these documents as they are now, with the vectors of the chunks that differ."""
        batch = _Batch(contents={draft.id: draft.content for draft in drafts})
        for draft in drafts:
            try:
                batch.drafts.append(self._current(draft))
            except (BadInputError, UnavailableError) as error:
                batch.failed[draft.id] = str(error)
        batch.known = self._documents.known([draft.id for draft in drafts])
        self._embed(batch)
        return batch

    def _current(self, draft: Draft) -> Draft:
        """The draft, or a new one if the document was edited since. Raises BadInputError."""
        as_read = Document(draft.id, draft.version, "")
        if self._source.is_current(as_read):
            return draft
        return self._drafter.draft(self._source.read(Listed(draft.id, draft.version)))

    def _embed(self, batch: _Batch) -> None:
        wanted = [
            (i, number)
            for i, draft in enumerate(batch.drafts)
            for number in draft.fresh(_confirmed(batch.known.get(draft.id)))
        ]
        started = time.perf_counter()
        done = self._embedding.embed([batch.drafts[i].chunks[n].text for i, n in wanted]) if wanted else None
        batch.embedding_s = time.perf_counter() - started
        vectors = done.vectors if done else np.empty((0, self._embedding.dim), np.float32)
        bad = {}
        if done:
            batch.computed = done.computed
            bad = {wanted[at][0]: f"chunk {wanted[at][1]}: {why}" for at, why in done.errors.items()}
        for i, why in bad.items():
            batch.failed[batch.drafts[i].id] = why
        kept = [i for i in range(len(batch.drafts)) if i not in bad]
        position = {i: at for at, i in enumerate(kept)}
        rows = [at for at, (i, _) in enumerate(wanted) if i not in bad]
        batch.full = [(position[wanted[at][0]], wanted[at][1]) for at in rows]
        batch.vectors = vectors[rows]
        batch.drafts = [batch.drafts[i] for i in kept]
        batch.payload_only = [
            (i, number)
            for i, draft in enumerate(batch.drafts)
            for number in _with_other_payload(draft, batch.known.get(draft.id))
        ]

    def _write(self, batch: _Batch, report: Report) -> None:
        self._documents.intend({draft.id: len(draft.chunks) for draft in batch.drafts})
        full = self._rows_of(batch, batch.full, batch.vectors)
        if len(full):
            self._rows.write(full)
            self._verify(full)
        payloads = self._rows_of(batch, batch.payload_only, None)
        if len(payloads):
            self._rows.write(payloads)
        old = [
            chunk_id(self._sync, draft.id, number)
            for draft in batch.drafts
            for number in range(len(draft.chunks), _most_chunks(batch.known.get(draft.id)))
        ]
        if old:
            self._rows.delete(old)
        self._documents.confirm([_written(draft) for draft in batch.drafts])
        self._documents.set_versions({each: None for each in batch.failed if each in batch.known})
        for document, why in batch.failed.items():
            report.fail(document, why)
            self.failed_contents.add(batch.contents[document])
        report.written += len(full)
        report.done += len(full)
        report.updated += len(payloads)
        report.removed += len(old)
        report.computed += batch.computed
        report.embedding_s += batch.embedding_s

    def _rows_of(self, batch: _Batch, places: Sequence[tuple[int, int]], vectors: Vectors | None) -> Rows:
        chunks: list[Chunk] = [batch.drafts[i].chunks[number] for i, number in places]
        documents = [batch.drafts[i].id for i, _ in places]
        numbers = [number for _, number in places]
        ids = [chunk_id(self._sync, document, number) for document, number in zip(documents, numbers, strict=True)]
        texts, payloads = [chunk.text for chunk in chunks], [chunk.payload for chunk in chunks]
        return Rows(ids, documents, numbers, texts, payloads, vectors)

    def _verify(self, rows: Rows) -> None:
        """Read some rows back. Raises UnavailableError if the sink does not have what it confirmed."""
        sample = rows.part(np.unique(np.linspace(0, len(rows) - 1, _VERIFIED_ROWS).astype(int)).tolist())
        assert sample.vectors is not None  # rows without vectors are not verified
        there = vectors_of(self._rows, sample.ids)
        missing = [document for each, document in zip(sample.ids, sample.documents, strict=True) if each not in there]
        if missing:
            raise UnavailableError(f"the sink confirmed the chunks of {missing[0]!r}, but it does not have them")
        same = agree(self._rows.keeps, np.stack([there[each] for each in sample.ids]), sample.vectors)
        if not same.all():
            document = sample.documents[int((~same).argmax())]
            raise UnavailableError(f"the sink has another vector for a chunk of {document!r} than the one it was sent")

    def delete(self, ids: Sequence[str], report: Report, *, on_written: Callable[[], None]) -> None:
        """Delete documents with all their chunks. Raises as `write`."""
        for at in range(0, len(ids), _DELETED_AT_A_TIME):
            part = ids[at : at + _DELETED_AT_A_TIME]
            known = self._documents.known(part)
            self._documents.intend(dict.fromkeys(known, 0))
            chunks = [chunk_id(self._sync, each.id, n) for each in known.values() for n in range(each.most_chunks)]
            self._rows.delete(chunks)
            self._documents.forget(part)
            report.removed += len(chunks)
            on_written()


def _confirmed(known: KnownDocument | None) -> list[bytes]:
    return known.confirmed if known is not None else []


def _with_other_payload(draft: Draft, known: KnownDocument | None) -> list[int]:
    """The numbers of the chunks whose payload alone differs."""
    old = _confirmed(known)
    return [
        n for n, chunk in enumerate(draft.chunks[: len(old)]) if chunk.entry != old[n] and old[n].startswith(chunk.key)
    ]


def _most_chunks(known: KnownDocument | None) -> int:
    return known.most_chunks if known is not None else 0


def _written(draft: Draft) -> Written:
    chunks = b"".join(chunk.entry for chunk in draft.chunks)
    return Written(draft.id, draft.version, draft.content, draft.payload, chunks)
