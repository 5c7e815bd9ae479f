"""What a run plans, and what became of it."""

from dataclasses import asdict, dataclass, field
from typing import Any

_LISTED = 100
"""Documents without a place in the index that a report names one by one."""


@dataclass
class Plan:
    """What a run would change.

    Attributes:
        known: documents in the index before.
        added, changed, deleted: documents.
        moved: those of `added` whose content another document had that is deleted.
        payload_only: documents of which only fields that the index keeps differ.
        touched: documents with another version and the same content.
        unchanged: documents that were not read.
        failed: documents that cannot be read; what the index has of them stays.
        unidentified: those of `failed` without an id: any document may be theirs, so nothing is deleted.
        chunks: of the documents that change, the chunks that differ.
        hits, to_compute: distinct texts of these chunks in the cache, and not.
        seconds: to compute them; None if the rate is not known.
        notes: what else will happen, in sentences.
    """

    known: int = 0
    added: int = 0
    changed: int = 0
    deleted: int = 0
    moved: int = 0
    payload_only: int = 0
    touched: int = 0
    unchanged: int = 0
    failed: int = 0
    unidentified: int = 0
    chunks: int = 0
    hits: int = 0
    to_compute: int = 0
    seconds: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether the index is in step already."""
        return not (self.added or self.changed or self.deleted or self.payload_only)

    @property
    def shrinks_by(self) -> float:
        """The share of the documents in the index that would go without coming back elsewhere, 0 to 1."""
        return (self.deleted - self.moved) / self.known if self.known else 0.0

    def lines(self) -> list[str]:
        """The plan for people."""
        moved = f" ({self.moved:,} of them moved)" if self.moved else ""
        counts = f"+{self.added:,}  ~{self.changed:,}  −{self.deleted:,} documents{moved}; {self.unchanged:,} unchanged"
        extra = [
            *([f"{self.touched:,} touched but the same"] if self.touched else []),
            *([f"{self.payload_only:,} with other fields only"] if self.payload_only else []),
            *([f"{self.failed:,} cannot be read"] if self.failed else []),
        ]
        distinct = self.hits + self.to_compute
        share = f"{100 * self.hits // distinct} % hits, " if distinct else ""
        time = "" if self.seconds is None or not self.to_compute else f", about {_duration(self.seconds)}"
        if self.to_compute and self.seconds is None:
            time = ", for a time that is not measured yet"
        vectors = f"{self.chunks:,} chunks to write, {share}{self.to_compute:,} to compute{time}"
        return [*self.notes, "; ".join([counts, *extra]), vectors]


@dataclass
class Report:
    """A run.

    Attributes:
        collection: its name in the sink.
        written: chunks whose vectors were written.
        updated: chunks of which only the payload was written.
        removed: chunks that were deleted.
        computed: texts that were not in the cache.
        embedding_s: seconds in which texts were embedded.
        failures: document → why it is not in the index in its current state; at most 100.
        failed: their number.
        serves: whether the sync's own name stands for this collection.
        done: chunks of `plan.chunks` so far.
        error: why the run stopped.
    """

    plan: Plan
    collection: str
    model: str
    written: int = 0
    updated: int = 0
    removed: int = 0
    computed: int = 0
    embedding_s: float = 0.0
    seconds: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)
    failed: int = 0
    serves: bool = False
    done: int = 0
    error: str | None = None

    def fail(self, document: str, why: str) -> None:
        """Record a document that cannot be brought in step."""
        self.failed += 1
        if len(self.failures) < _LISTED:
            self.failures[document] = why

    def as_json(self) -> dict[str, Any]:
        """The report for `--json` and the ledger."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report for people."""
        lines = [
            f"{self.written:,} chunks written, {self.updated:,} payloads updated, {self.removed:,} chunks deleted, "
            f"{self.computed:,} texts computed in {_duration(self.seconds)}"
        ]
        if self.failed:
            lines.append(f"{self.failed:,} documents are not in step, and what the index has of them stays:")
            lines += [f"  {document}: {why}" for document, why in self.failures.items()]
            lines += [f"  … and {self.failed - len(self.failures):,} more"] if self.failed > len(self.failures) else []
        return lines


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
