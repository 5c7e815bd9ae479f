"""Embed a file: a stream of blocks from the input, through the pipeline, into the output (`semel embed`)."""

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from semel.cli.commands.options import device_or_setting
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
"""Enough that texts of similar length share a batch and the device never waits. All of these blocks are in memory."""

_LISTED = 20
"""Inputs without a vector that are listed one by one at the end."""


@dataclass(frozen=True)
class EmbedOptions:
    """The options of one `semel embed` command.

    Attributes:
        model: a name on this machine or on the server; None for the default there.
        truncate: False makes texts above the model's limit fail.
    """

    source: Path
    output: Path
    model: str | None
    device: str
    text_field: str
    prompt_name: str
    skip_bad: bool
    truncate: bool


@dataclass(frozen=True)
class EmbeddedBlock:
    """A block with its vectors, and the outcomes of those of its texts that could be read."""

    block: Block
    outcomes: list[Outcome]


@dataclass
class Summary:
    """The counts of a run, for the lines that are printed at its end.

    Attributes:
        texts: inputs, including those that could not be read.
        bad: one line for each of the first inputs that have no vector.
    """

    seconds: float = 0.0
    texts: int = 0
    by_outcome: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    truncated: int = 0
    bad: list[str] = field(default_factory=list)

    def counts(self) -> Counts:
        """The counts by outcome, as a job has them."""
        o = self.by_outcome
        return Counts(o[Outcome.HIT], o[Outcome.COMPUTED], o[Outcome.COALESCED], o[Outcome.FAILED])

    def add(self, embedded: EmbeddedBlock) -> None:
        """Add the counts of a block. Inputs without a readable text count as failed."""
        block = embedded.block
        self.texts += len(block.items)
        self.truncated += sum(block.truncated)
        for outcome, count in Counter(embedded.outcomes).items():
            self.by_outcome[outcome] += count
        self.by_outcome[Outcome.FAILED] += len(block.items) - len(embedded.outcomes)
        for i, why in block.errors.items():
            if len(self.bad) < _LISTED:
                self.bad.append(f"  {block.items[i].where}: {why}")

    def lines(self, output: Path) -> list[str]:
        """The lines to print after a run that wrote `output`."""
        c = self.counts()
        rate = self.texts / self.seconds if self.seconds else 0.0
        lines = [
            f"{self.texts:,} texts in {self.seconds:.1f} s ({rate:,.0f} texts/s): {c.computed:,} computed, "
            f"{c.hit:,} hits, {c.coalesced:,} coalesced → {output}"
        ]
        if self.truncated:
            lines.append(f"{self.truncated:,} texts were longer than the model's limit and were truncated")
        if c.failed:
            lines += [f"{c.failed:,} inputs have no vector:", *self.bad]
            lines += [f"  … and {c.failed - len(self.bad):,} more"] if c.failed > len(self.bad) else []
        return lines


def read_source(settings: Settings, options: EmbedOptions) -> Iterator[Item]:
    """Read the inputs of a command, as a stream. Raises BadInputError, see `read_items`."""
    return read_items(
        options.source,
        text_field=options.text_field,
        skip_bad=options.skip_bad,
        max_text_bytes=settings.max_text_bytes,
    )


def write_blocks(options: EmbedOptions, blocks: Iterator[EmbeddedBlock], *, dim: int, label: str) -> Summary:
    """Write all `blocks` to the output; after an error or Ctrl-C there is no output file.

    Args:
        dim: size of the vectors.
        label: names the progress bar.

    Raises:
        BadInputError: the input has no texts, or the output's format cannot hold a block.
    """
    summary, started = Summary(), time.perf_counter()
    with open_output(options.output, dim=dim) as output, progress_line(label) as line:
        for embedded in blocks:
            output.write(embedded.block)
            summary.add(embedded)
            summary.seconds = time.perf_counter() - started
            line.show(summary.counts(), total=None)
        line.show(summary.counts(), total=summary.texts)
        if not summary.texts:
            raise BadInputError(f"{options.source} contains no texts")
    return summary


def embed_local(settings: Settings, options: EmbedOptions) -> Summary:
    """Embed in this process, with the cache at SEMEL_DATABASE_URL.

    Raises:
        BadInputError: the input, the prompt or the model cannot be used.
        ModelLoadError: the model cannot be loaded on this machine.
    """
    with local(settings, device=device_or_setting(options.device, settings)) as here:
        space = here.space(options.model or settings.default_model, options.prompt_name)
        blocks = embed_blocks(here.pipeline, space, options, read_source(settings, options))
        return write_blocks(options, blocks, dim=space.dim, label=f"{space.model} here")


def embed_blocks(
    pipeline: Pipeline, space: Space, options: EmbedOptions, items: Iterator[Item]
) -> Iterator[EmbeddedBlock]:
    """Embed several blocks at a time, and yield them in order."""
    under_way: deque[Future[EmbeddedBlock]] = deque()
    pool = ThreadPoolExecutor(_BLOCKS_UNDER_WAY, thread_name_prefix="block")
    try:
        while block := list(islice(items, _BLOCK_TEXTS)):
            under_way.append(pool.submit(_embed_block, pipeline, space, options, block))
            if len(under_way) >= _BLOCKS_UNDER_WAY:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        for future in under_way:
            future.cancel()
        pool.shutdown(wait=False)


def _embed_block(pipeline: Pipeline, space: Space, options: EmbedOptions, items: list[Item]) -> EmbeddedBlock:
    good = [i for i, item in enumerate(items) if item.text is not None]
    texts = [item.text for item in items if item.text is not None]
    embedded = pipeline.embed(space, texts, lane=Lane.BULK, truncate=options.truncate)
    errors = {good[i]: error.message for i, error in embedded.errors.items()}
    block = spread(items, good, embedded.vectors, errors, embedded.truncated.tolist())
    return EmbeddedBlock(block, list(embedded.outcomes))


def spread(
    items: Sequence[Item], good: list[int], vectors: Vectors, errors: dict[int, str], truncated: list[bool]
) -> Block:
    """Make a block in which every input has a row, including those without a readable text.

    Args:
        items: n inputs.
        good: positions of the m inputs that have a text.
        vectors: float32 (m, dim).
        errors: position in `items` → why that text has no vector.
        truncated: m flags.
    """
    if len(good) == len(items):
        return Block(items, vectors, errors, truncated)
    rows = np.full((len(items), vectors.shape[1]), np.nan, np.float32)
    cut = np.zeros(len(items), np.bool_)
    rows[good], cut[good] = vectors, truncated
    unreadable = {i: item.error or "" for i, item in enumerate(items) if item.text is None}
    return Block(items, rows, unreadable | errors, cut.tolist())
