"""The work behind `semel embed`: a stream of blocks from the input through the pipeline into the output."""

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from semel.cli.commands.options import wanted_device
from semel.cli.work.local import local
from semel.cli.work.outputs import Block, open_output
from semel.cli.work.progress import progress_line
from semel.errors import BadInputError
from semel.pipeline import Pipeline
from semel.rows import Item, read_items
from semel.settings import Settings
from semel.values.job import Counts
from semel.values.model import Space
from semel.values.text import Lane, Outcome
from semel.values.vectors import Vectors

_BLOCK_TEXTS = 1024

_BLOCKS_UNDER_WAY = 6
"""Enough that texts of like length meet in a batch and the device never waits; memory holds these blocks."""

_LISTED = 20
"""Bad inputs shown one by one at the end."""


@dataclass(frozen=True)
class EmbedOptions:
    """What the user asked for."""

    source: Path
    output: Path
    model: str | None  # of this machine, or of the server: its default
    device: str
    text_field: str
    prompt_name: str
    skip_bad: bool
    truncate: bool


@dataclass
class Summary:
    """What happened, for the lines at the end."""

    seconds: float = 0.0
    texts: int = 0
    by_outcome: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    truncated: int = 0
    bad: list[str] = field(default_factory=list)

    def counts(self) -> Counts:
        o = self.by_outcome
        return Counts(o[Outcome.HIT], o[Outcome.COMPUTED], o[Outcome.COALESCED], o[Outcome.FAILED])

    def take(self, done: "_Done") -> None:
        """Count a block."""
        self.texts += len(done.block.items)
        self.truncated += sum(done.block.truncated)
        for outcome, count in Counter(done.outcomes).items():
            self.by_outcome[outcome] += count
        # Those without a text have no outcome of their own.
        self.by_outcome[Outcome.FAILED] += len(done.block.items) - len(done.outcomes)
        for i, why in done.block.errors.items():
            if len(self.bad) < _LISTED:
                self.bad.append(f"  {done.block.items[i].where}: {why}")

    def lines(self, output: Path) -> list[str]:
        c = self.counts()
        rate = self.texts / self.seconds if self.seconds else 0.0
        lines = [
            f"{self.texts:,} texts in {self.seconds:.1f} s ({rate:,.0f} texts/s): {c.computed:,} computed, "
            f"{c.hit:,} hits, {c.coalesced:,} duplicates on the way → {output}"
        ]
        if self.truncated:
            lines.append(f"{self.truncated:,} texts were longer than the model reads and were cut")
        if c.failed:
            lines += [f"{c.failed:,} inputs have no vector:", *self.bad]
            lines += [f"  … and {c.failed - len(self.bad):,} more"] if c.failed > len(self.bad) else []
        return lines


def _items(settings: Settings, wanted: EmbedOptions) -> Iterator[Item]:
    return read_items(
        wanted.source,
        text_field=wanted.text_field,
        skip_bad=wanted.skip_bad,
        max_text_bytes=settings.max_text_bytes,
    )


def _blocks(items: Iterator[Item]) -> Iterator[list[Item]]:
    while block := list(islice(items, _BLOCK_TEXTS)):
        yield block


@dataclass(frozen=True)
class _Done:
    """A block with its vectors, and what became of its good texts."""

    block: Block
    outcomes: list[Outcome]


def _write(wanted: EmbedOptions, blocks: Iterator[_Done], *, dim: int, label: str) -> Summary:
    """Drain `blocks` into the output; on an error or Ctrl-C the output does not appear."""
    summary, started = Summary(), time.perf_counter()
    with open_output(wanted.output, dim=dim) as output, progress_line(label) as line:
        for done in blocks:
            output.write(done.block)
            summary.take(done)
            summary.seconds = time.perf_counter() - started
            line.show(summary.counts(), total=None)
        line.show(summary.counts(), total=summary.texts)
        if not summary.texts:
            raise BadInputError(f"{wanted.source} holds no texts")
    return summary


def embed_local(settings: Settings, wanted: EmbedOptions) -> Summary:
    """Embed in this process, on the cache at SEMEL_DATABASE_URL."""
    with local(settings, device=wanted_device(wanted.device, settings)) as here:
        space = here.space(wanted.model or settings.default_model, wanted.prompt_name)
        blocks = _local_blocks(here.pipeline, space, wanted, _items(settings, wanted))
        return _write(wanted, blocks, dim=space.dim, label=f"{space.model} here")


def _local_blocks(pipeline: Pipeline, space: Space, wanted: EmbedOptions, items: Iterator[Item]) -> Iterator[_Done]:
    """Some blocks at once, given back in order."""
    under_way: deque[Future[_Done]] = deque()
    pool = ThreadPoolExecutor(_BLOCKS_UNDER_WAY, thread_name_prefix="block")
    try:
        for block in _blocks(items):
            under_way.append(pool.submit(_embed_block, pipeline, space, wanted, block))
            if len(under_way) >= _BLOCKS_UNDER_WAY:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        for future in under_way:
            future.cancel()
        pool.shutdown(wait=False)


def _embed_block(pipeline: Pipeline, space: Space, wanted: EmbedOptions, items: list[Item]) -> _Done:
    good = [i for i, item in enumerate(items) if item.text is not None]
    texts = [item.text for item in items if item.text is not None]
    embedded = pipeline.embed(space, texts, lane=Lane.BULK, truncate=wanted.truncate)
    errors = {good[i]: error.message for i, error in embedded.errors.items()}
    return _Done(_spread(items, good, embedded.vectors, errors, embedded.truncated.tolist()), list(embedded.outcomes))


def _spread(
    items: Sequence[Item], good: list[int], vectors: Vectors, errors: dict[int, str], truncated: list[bool]
) -> Block:
    """A block in which every input has its row, also those that had no text."""
    if len(good) == len(items):
        return Block(items, vectors, errors, truncated)
    every = np.full((len(items), vectors.shape[1]), np.nan, np.float32)
    cut = np.zeros(len(items), np.bool_)
    every[good], cut[good] = vectors, truncated
    bad = {i: item.error or "" for i, item in enumerate(items) if item.text is None}
    return Block(items, every, bad | errors, cut.tolist())
