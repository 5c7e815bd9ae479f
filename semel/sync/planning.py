"""The plan of a run: which documents differ from the index, and what that takes."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice

from semel.errors import BadInputError, UnavailableError
from semel.sync.document import Draft, Listed
from semel.sync.drafting import Drafter
from semel.sync.embedding import Forecasting
from semel.sync.ledger import KnownDocument
from semel.sync.ledger.documents import Documents, document_key
from semel.sync.report import Plan, Report
from semel.sync.sources import Source
from semel.sync.spool import Spool

_AT_A_TIME = 512
"""Documents that are compared with the ledger in one statement."""

_READ_AT_A_TIME = 16
"""Documents that a thread reads and splits before it hands them over."""


class Planner:
    """Compares a source with what the ledger knows of a collection.

    Args:
        source: the documents.
        documents: those of the collection.
        drafter: splits the documents that are read.
        forecasting: counts what embedding takes.
        read_all: read every document, because what is kept of them changed.
    """

    def __init__(
        self,
        source: Source,
        documents: Documents,
        drafter: Drafter,
        forecasting: Forecasting,
        *,
        read_all: bool,
    ) -> None:
        self._source = source
        self._documents = documents
        self._drafter = drafter
        self._forecasting = forecasting
        self._read_all = read_all
        self._seen: set[bytes] = set()
        self._added: Counter[bytes] = Counter()
        self._drafted = 0
        self._filled: set[str] = set()
        self.touched: dict[str, str | None] = {}
        self.deleted: list[str] = []
        self.contents: dict[str, bytes] = {}

    def plan(self, plan: Plan, report: Report, spool: Spool, *, on_listed: Callable[[int], None]) -> None:
        """Fill in the plan, and spool the drafts of all documents that differ.

        Args:
            report: gets the documents that cannot be read.
            on_listed: called with the number of documents that were compared so far.

        Raises:
            BadInputError, UnavailableError: the source cannot be read.
            OSError: the disk has no room for the drafts.
        """
        with ThreadPoolExecutor(self._source.threads, thread_name_prefix="draft") as pool:
            for part in _parts(self._source.list()):
                self._compare(part, plan, report, spool, pool)
                on_listed(len(self._seen))
        self._find_deleted(plan)
        self._note_empty_fields(plan)
        forecast = self._forecasting.end()
        plan.hits, plan.to_compute, plan.seconds = forecast.hits, forecast.to_compute, forecast.seconds

    def _compare(self, part: list[Listed], plan: Plan, report: Report, spool: Spool, pool: ThreadPoolExecutor) -> None:
        known = self._documents.known([each.id for each in part if each.id is not None])
        to_read: list[Listed] = []
        for listed in part:
            if listed.id is None:
                plan.failed, plan.unidentified = plan.failed + 1, plan.unidentified + 1
                report.fail(f"(document {plan.unidentified} without an id)", listed.error or "it has no id")
            elif (key := document_key(listed.id)) in self._seen:
                plan.failed += 1
                report.fail(listed.id, "another document of the source has the same id; only the first one counts")
            else:
                self._seen.add(key)
                if listed.error is None and self._is_unchanged(listed, known.get(listed.id)):
                    plan.unchanged += 1
                else:
                    to_read.append(listed)
        keys: list[bytes] = []
        texts: list[str] = []
        slices = [to_read[at : at + _READ_AT_A_TIME] for at in range(0, len(to_read), _READ_AT_A_TIME)]
        drafts = chain.from_iterable(pool.map(self._drafts, slices))
        for listed, draft in zip(to_read, drafts, strict=True):
            assert listed.id is not None  # those without were sorted out
            if isinstance(draft, str):
                plan.failed += 1
                report.fail(listed.id, draft)
                if listed.id in known:
                    self.touched[listed.id] = None  # the next run reads it, whatever its version
                continue
            self._drafted += 1
            for chunk in draft.chunks[:1]:
                self._filled.update(name for name, value in chunk.payload.items() if value is not None)
            changed = self._take(draft, known.get(listed.id), plan, spool)
            keys += [draft.chunks[i].key for i in changed]
            texts += [draft.chunks[i].text for i in changed]
        plan.chunks += len(keys)
        self._forecasting.add(keys, texts)

    def _is_unchanged(self, listed: Listed, known: KnownDocument | None) -> bool:
        if known is None or known.pending is not None or self._read_all:
            return False
        return listed.version is not None and listed.version == known.version

    def _drafts(self, part: list[Listed]) -> list[Draft | str]:
        return [self._draft(listed) for listed in part]

    def _draft(self, listed: Listed) -> Draft | str:
        """The draft of a document, or why there is none."""
        if listed.error is not None:
            return listed.error
        try:
            return self._drafter.draft(self._source.read(listed))
        except (BadInputError, UnavailableError) as error:
            return str(error)

    def _take(self, draft: Draft, known: KnownDocument | None, plan: Plan, spool: Spool) -> list[int]:
        """Count a document that was read, and spool it if it differs. Returns the positions of chunks to embed."""
        if known is None or (known.pending is not None and not known.chunks):
            plan.added += 1
            self._added[draft.content] += 1
            old: list[bytes] = []
        else:
            old = known.confirmed
            entries = [chunk.entry for chunk in draft.chunks]
            if entries == old:
                plan.touched += draft.version != known.version
                plan.unchanged += draft.version == known.version
                if draft.content == known.content:  # otherwise it differs in white space that no chunk has
                    self.touched[draft.id] = draft.version
                    return []
            elif len(old) == len(draft.chunks) and not draft.fresh(old):
                plan.payload_only += 1
            else:
                plan.changed += 1
        spool.add(draft)
        return draft.fresh(old)

    def _note_empty_fields(self, plan: Plan) -> None:
        """A field that no document has may be misspelt."""
        missing = [name for name in self._drafter.payload if name not in self._filled]
        if self._drafted and missing:
            plan.notes.append(f"none of the {self._drafted:,} documents that were read has a field {missing[0]!r}")

    def _find_deleted(self, plan: Plan) -> None:
        """What the index has and the source does not."""
        for key, document, content in self._documents.identities():
            plan.known += 1
            if key not in self._seen:
                self.deleted.append(document)
                self.contents[document] = content
                if self._added[content] > 0:  # one new document takes the place of one old one
                    self._added[content] -= 1
                    plan.moved += 1
        if plan.unidentified and self.deleted:
            plan.notes.append(
                f"{plan.unidentified:,} documents have no readable id, so none of the {len(self.deleted):,} that seem "
                "to be gone is deleted"
            )
            self.deleted = []
            plan.moved = 0
        plan.deleted = len(self.deleted)


def _parts(listed: Iterable[Listed]) -> Iterator[list[Listed]]:
    documents = iter(listed)
    while part := list(islice(documents, _AT_A_TIME)):
        yield part
