"""Embed a file: a stream of blocks from the input, through the pipeline, into the output (`semel embed`)."""

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from semel.backends.models.digests import Digests
from semel.backends.models.source import ModelSource, find_model
from semel.cache.catalog import prompt_for
from semel.chunking import Chunker
from semel.cli.work.outputs import Block, open_output
from semel.cli.work.progress import progress_line
from semel.errors import BadInputError, UnknownPromptError
from semel.local import Local
from semel.pipeline import Pipeline
from semel.rows import Item, read_items, skipped_files
from semel.settings import Settings
from semel.values.activation import activated
from semel.values.job import Counts
from semel.values.model import Space
from semel.values.read_counts import ReadCounts
from semel.values.result_columns import ResultColumns
from semel.values.sparse import SPARSE_DIM
from semel.values.sync import ChunkOptions
from semel.values.text import Lane, Outcome
from semel.values.vectors import AnyVectors, empty_rows

_BLOCK_TEXTS = 1024

_BLOCKS_UNDER_WAY = 6
"""Enough that texts of similar length share a batch and the device never waits. All of these blocks are in memory."""

_LISTED = 20
"""Inputs without a vector that are listed one by one at the end."""

_KINDS = 6
"""Suffixes of files that were not read, which are listed at the end."""


@dataclass(frozen=True)
class EmbedOptions:
    """The options of one `semel embed` command.

    Attributes:
        model: a name on this machine or on the server; None for the default there.
        input_type: `document`, `query` or `none`: selects the model's prompt, unless `prompt_name` does.
        strict: refuse the input if a text cannot be read.
        truncate: False makes texts above the model's limit fail.
        include: patterns of names of files in a folder that are read as text.
        chunk: how long texts are split; None to leave them whole.
    """

    source: Path
    output: Path
    model: str | None
    device: str
    text_field: str
    prompt_name: str
    input_type: str
    strict: bool
    truncate: bool
    include: tuple[str, ...] = ()
    chunk: ChunkOptions | None = None


@dataclass(frozen=True)
class EmbeddedBlock:
    """A block with its vectors, the outcomes of those of its texts that could be read, and how much the model read."""

    block: Block
    outcomes: list[Outcome]
    read: ReadCounts


@dataclass
class Summary:
    """The counts of a run, for the lines that are printed at its end.

    Attributes:
        seconds: from the start of the command until the output was written.
        fetching_s: the part of them in which results were fetched from a server.
        texts: inputs, including those that could not be read.
        read: how much of them the model read.
        bad: one line for each of the first inputs that have no vector.
        skipped: suffix → files of the folder that were not read.
    """

    seconds: float = 0.0
    fetching_s: float = 0.0
    texts: int = 0
    by_outcome: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    read: ReadCounts = field(default_factory=ReadCounts)
    bad: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def counts(self) -> Counts:
        """The counts by outcome, as a job has them."""
        o = self.by_outcome
        return Counts(o[Outcome.HIT], o[Outcome.COMPUTED], o[Outcome.COALESCED], o[Outcome.FAILED])

    def add(self, embedded: EmbeddedBlock) -> None:
        """Add the counts of a block. Inputs without a readable text count as failed."""
        block = embedded.block
        self.texts += len(block.items)
        self.read += embedded.read
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
        fetching = f", {self.fetching_s:.1f} s of them to fetch the results" if self.fetching_s else ""
        lines = [
            f"{self.texts:,} texts in {self.seconds:.1f} s ({rate:,.0f} texts/s{fetching}): {c.computed:,} computed, "
            f"{c.hit:,} hits, {c.coalesced:,} coalesced → {output}"
        ]
        if self.read.truncated:
            share = 100 * self.read.truncated / self.texts
            lines.append(
                f"{self.read.truncated:,} texts ({share:.1f} %) were longer than the model's limit: about "
                f"{self.read.unread_share:.0%} of all tokens are not in the vectors (--chunk splits long texts)"
            )
        if self.skipped:
            kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in self.skipped.most_common(_KINDS))
            more = " …" if len(self.skipped) > _KINDS else ""
            example = next((suffix for suffix, _ in self.skipped.most_common() if suffix.startswith(".")), ".SUFFIX")
            lines.append(
                f"{self.skipped.total():,} files of the folder were not read: {kinds}{more} "
                f"(--include '*{example}' reads such files as text)"
            )
        if c.failed:
            lines += [f"{c.failed:,} inputs have no vector:", *self.bad]
            lines += [f"  … and {c.failed - len(self.bad):,} more"] if c.failed > len(self.bad) else []
        return lines


def read_source(settings: Settings, options: EmbedOptions) -> Iterator[Item]:
    """Read the inputs of a command, as a stream.

    Raises:
        BadInputError: see `read_items`, and `Chunker`.
        ModelLoadError, UnknownModelError: as of `Chunker`.
    """
    items = read_items(
        options.source,
        text_field=options.text_field,
        strict=options.strict,
        max_text_bytes=settings.max_text_bytes,
        include=options.include,
    )
    return _chunker(settings, options, options.chunk).split(items) if options.chunk else items


def _chunker(settings: Settings, options: EmbedOptions, chunk: ChunkOptions) -> Chunker:
    source = model_here(settings, options)
    prompts = source.described.prompts
    prompt_name = options.prompt_name or prompt_for(options.input_type, prompts)
    if prompt_name not in prompts:
        raise UnknownPromptError(source.name, prompt_name, [prompt for prompt in prompts if prompt])
    return Chunker(source, chunk, prompt=prompts[prompt_name])


def model_here(settings: Settings, options: EmbedOptions) -> ModelSource:
    """The model of a command in the configuration of this process. Raises UnknownModelError."""
    digests = Digests(settings.home / "digests.json")
    name = options.model or settings.default_model
    return find_model(name, settings.all_models, models_dir=settings.models_dir, digests=digests)


def write_blocks(
    options: EmbedOptions,
    blocks: Iterator[EmbeddedBlock],
    columns: ResultColumns,
    *,
    label: str,
    waits_for: str = "",
) -> Summary:
    """Write all `blocks` to the output; after an error or Ctrl-C there is no output file.

    Args:
        columns: those that the model fills.
        label: names the progress bar.
        waits_for: what the first block waits for, shown until it comes.

    Raises:
        BadInputError: the input has no texts, or the output's format cannot hold a block.
    """
    summary, started = Summary(skipped=skipped_files(options.source, options.include)), time.perf_counter()
    with open_output(options.output, columns) as output, progress_line(label) as line:
        line.waits_for(waits_for)
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
    with Local(settings=settings, device=options.device) as here:
        space = here.space(options.model or settings.default_model, options.prompt_name, options.input_type)
        blocks = embed_blocks(here.pipeline, space, options, read_source(settings, options))
        waits_for = f"loading {space.model}, if a text must be computed"
        columns = ResultColumns(space.kind, space.dim, space.head.labels)
        return write_blocks(options, blocks, columns, label=f"{space.model} here", waits_for=waits_for)


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
    rows = embedded.vectors
    if space.kind == "classifier":
        rows = activated(space.head.activation, rows)
    sizes, cut = [len(text) for text in texts], embedded.truncated.tolist()
    block = spread(items, good, rows, errors, cut)
    return EmbeddedBlock(block, list(embedded.outcomes), ReadCounts.of(sizes, embedded.tokens.tolist(), cut))


def spread(
    items: Sequence[Item], good: list[int], vectors: AnyVectors, errors: dict[int, str], truncated: list[bool]
) -> Block:
    """Make a block in which every input has a row, including those without a readable text.

    Args:
        items: n inputs.
        good: positions of the m inputs that have a text.
        vectors: a row for each of these.
        errors: position in `items` → why that text has no vector.
        truncated: m flags.
    """
    if len(good) == len(items):
        return Block(items, vectors, errors, truncated)
    rows = empty_rows(len(items), SPARSE_DIM if vectors.ndim == 1 else vectors.shape[1])
    cut = np.zeros(len(items), np.bool_)
    rows[good], cut[good] = vectors, truncated
    unreadable = {i: item.error or "" for i, item in enumerate(items) if item.text is None}
    return Block(items, rows, unreadable | errors, cut.tolist())
