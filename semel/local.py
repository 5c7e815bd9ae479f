"""semel in this process, without a server: `from semel import Local`. Its cache is the one that the settings name.

with Local() as local:
    vectors = local.embed(["one", "two"])                   # float32 (2, dim); the next run finds them in the cache
    ranked = local.rerank("a question", ["one", "two"])
"""

from collections.abc import Iterable, Sequence
from typing import Any

from semel.backends.engine import Engine
from semel.cache.catalog import InputType, prompt_for
from semel.cache.claims import LocalClaims
from semel.cache.store import VectorStore
from semel.client import Classification, Relevance
from semel.client.progress import progress_bar
from semel.client.texts import texts_of
from semel.db import Database
from semel.dimensions import check_dimensions, cut_dimensions
from semel.error_codes import is_fault_of_the_text, revive
from semel.errors import InvalidTextError, UnknownPromptError
from semel.log import configure_logs
from semel.pipeline import Pipeline
from semel.rerank import Reranker, best_first
from semel.settings import Settings, load_settings
from semel.steps import finish
from semel.tasks.worker.embed import Embedder
from semel.tasks.worker.local import LocalSender
from semel.tasks.worker.models import LoadedModels
from semel.values.activation import activated
from semel.values.model import Kind, Space
from semel.values.sparse import SparseVector
from semel.values.text import Input, Lane, Outcome, Pair
from semel.values.variant import TruncateSide, Variant
from semel.values.vectors import AnyVectors, Computed, Vectors

MMAP_BYTES = 4 << 30
"""How much of a SQLite database is mapped into memory, which makes a run of hits faster."""


class Local:
    """The cache, the models and the pipeline of this process. Thread-safe; a context manager.

    A model is loaded when a text must first be computed. Several processes may share the cache.

    Args:
        device: `auto`, a kind of device, or the name of one.
        settings: instead of those of the environment and of semel.toml.

    Attributes:
        default_model: the model of a call that names none.
        store, models, pipeline: its parts, for those who need more than `embed` and `rerank`.

    Raises:
        UnavailableError: the database does not answer.
        SchemaError: the database belongs to another version of semel.
    """

    def __init__(self, *, device: str = "auto", settings: Settings | None = None) -> None:
        if settings is None:
            settings = load_settings()
            configure_logs(level="warning", fmt=settings.log_format)
        self.default_model = settings.default_model
        self._db = Database(settings.database, max_bytes=settings.database_max_bytes, mmap_bytes=MMAP_BYTES)
        self._db.upgrade()
        self.store = VectorStore(self._db, dtype=settings.vector_dtype)
        self._engine = Engine(max_batch_tokens=settings.max_batch_tokens)
        self.models = LoadedModels(settings, self._engine, device=settings.device if device == "auto" else device)
        self._embedder = Embedder(self._engine, self.store, LocalClaims())
        self._sender = LocalSender(self.models, self._embedder)
        self.pipeline = Pipeline(self.store, self._sender)
        self._reranker = Reranker(self.pipeline, _Spaces(self))

    def __enter__(self) -> "Local":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the engine, and close the database."""
        self._engine.close()
        self._db.close()

    def embed(
        self,
        texts: Any,
        *,
        model: str | None = None,
        dimensions: int | None = None,
        input_type: str = "none",
        prompt_name: str = "",
        truncate: bool = True,
        max_tokens: int | None = None,
        truncate_side: TruncateSide = "right",
        normalize: bool | None = None,
        text_field: str = "text",
        show_progress: bool = False,
    ) -> Vectors:
        """Vectors for any number of texts, float32 (len(texts), dim), in order.

        Args:
            texts: a list of texts, a single text, or a table (pandas, polars, pyarrow, DuckDB) with a column of texts.
            model: a name from semel.toml; None for the default model.
            input_type: `query` or `document`: selects the model's prompt for such texts, if it has one.
            dimensions, prompt_name, truncate, max_tokens, truncate_side, normalize, text_field: as of `Client.embed`.
            show_progress: show a bar on stderr, or a line in a notebook.

        Raises:
            InvalidTextError: a text has no vector; the message names the first one. The others are cached.
            BadInputError: the model cannot be used in this way.
            UnknownModelError, ModelLoadError: the model is not configured, or cannot be loaded here.
        """
        variant = Variant(max_tokens, truncate_side, normalize)
        space = self.space(model or self.default_model, prompt_name, input_type).with_variant(variant)
        space.check_kind("embed")
        check_dimensions(dimensions, space)
        items = texts_of(texts, text_field)
        vectors = self._computed(space, items, truncate=truncate, show_progress=show_progress)
        return cut_dimensions(vectors, dimensions, space)

    def embed_sparse(
        self,
        texts: Any,
        *,
        model: str | None = None,
        prompt_name: str = "",
        truncate: bool = True,
        text_field: str = "text",
        show_progress: bool = False,
    ) -> list[SparseVector]:
        """Sparse vectors for any number of texts, in order; arguments as of `Client.embed_sparse` and `embed`.

        Raises:
            InvalidTextError, BadInputError, UnknownModelError, ModelLoadError: as of `embed`.
        """
        space = self.space(model or self._only("sparse"), prompt_name)
        space.check_kind("sparse")
        items = texts_of(texts, text_field)
        return list(self._computed(space, items, truncate=truncate, show_progress=show_progress))

    def classify(
        self,
        texts: Iterable[str | tuple[str, str]],
        *,
        model: str | None = None,
        truncate: bool = True,
        raw_scores: bool = False,
        show_progress: bool = False,
    ) -> list[Classification]:
        """The label of each text or pair of texts, in order; arguments as of `Client.classify` and `embed`.

        Raises:
            InvalidTextError, BadInputError, UnknownModelError, ModelLoadError: as of `embed`.
        """
        space = self.space(model or self._only("classifier"), "")
        space.check_kind("classifier")
        items = (
            [texts] if isinstance(texts, str) else [text if isinstance(text, str) else Pair(*text) for text in texts]
        )
        logits = self._computed(space, items, truncate=truncate, show_progress=show_progress)
        scores = logits if raw_scores else activated(space.head.activation, logits)
        return [Classification.of(space.head.labels, row.tolist()) for row in scores]

    def _only(self, kind: Kind) -> str:
        """The default model, or the only configured one of this kind if the default is of another."""
        named = [name for name, entry in self.models.entries.items() if entry.kind == kind]
        return named[0] if len(named) == 1 and self.default_model not in named else self.default_model

    def _computed(self, space: Space, items: Sequence[Input], *, truncate: bool, show_progress: bool) -> AnyVectors:
        """What the model computes of each text or pair. Raises InvalidTextError, or the error of a text."""
        total = len(items)
        with progress_bar(visible=show_progress) as show:

            def settled(missing: int, done: Computed) -> None:
                show(space.model, total - missing + len(done.outcomes), total, total - missing)

            sender = LocalSender(self.models, self._embedder, settled=settled)
            embedded = finish(self.pipeline.steps(space, items, lane=Lane.BULK, truncate=truncate), sender)
            show(space.model, total, total, embedded.count(Outcome.HIT))
        for index, error in embedded.errors.items():
            if is_fault_of_the_text(error.code):
                raise InvalidTextError(index, f"has no vector: {error.message}")
            raise revive(error.code, f"text {index} has no vector: {error.message}")
        return embedded.vectors

    def rerank(
        self,
        query: str,
        documents: Any,
        *,
        model: str | None = None,
        top_n: int | None = None,
        raw_scores: bool = False,
    ) -> list[Relevance]:
        """The documents by their relevance to the query, the best first; arguments as of `Client.rerank`.

        Raises:
            BadInputError: the query or a document cannot be scored; the message names it.
            UnknownModelError, ModelLoadError: as of `embed`.
        """
        steps = self._reranker.rank(model, query, texts_of(documents, "text"), raw=raw_scores)
        scores = finish(steps, self._sender).scores
        return [Relevance(i, float(scores[i])) for i in best_first(scores)[:top_n]]

    def space(self, model: str, prompt_name: str, input_type: str = "none") -> Space:
        """Return the vector space of a model with one of its prompts.

        Args:
            prompt_name: "" leaves the choice to `input_type`.
            input_type: `document`, `query` or `none`.

        Raises:
            UnknownModelError: no such model is configured.
            ModelLoadError: its files are not on this machine, or cannot be used.
            UnknownPromptError: the model has no such prompt.
            BadInputError: there is no such input type.
        """
        spaces = self.models.spaces(model)
        if prompt_name and prompt_name not in spaces:
            raise UnknownPromptError(model, prompt_name, [name for name in spaces if name])
        return spaces[prompt_name or prompt_for(input_type, spaces)]

    def count_tokens(self, space: Space, texts: Sequence[str]) -> list[tuple[int, bool]]:
        """Return the number of tokens of each text, and whether the model truncates it."""
        with self.models.using(space.model) as model:
            tokens = model.backend.tokenize(texts, prompt=model.prompts[space.prompt_name])
        return [(len(read.ids), read.truncated) for read in tokens]


class _Spaces:
    """The vector spaces of this process, as the reranker asks for them."""

    def __init__(self, local: Local) -> None:
        self._local = local

    def space(self, model: str | None = None) -> Space:
        """The space of a model without a prompt."""
        return self.space_for_input(model, None)

    def space_for_input(self, model: str | None, input_type: InputType | None) -> Space:
        """The space of the model's prompt for texts of this kind."""
        return self._local.space(model or self._local.default_model, "", input_type or "none")
