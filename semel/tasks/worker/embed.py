"""Compute missing keys once: claim, compute, store, release; then collect the keys that others were computing.

The worker's tasks and `semel embed --local` use this with different claims.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from semel.backends.base import Backend
from semel.backends.engine import Engine
from semel.backends.submission import Part, Submission
from semel.cache.claims import Claims, Lease
from semel.cache.store import VectorStore
from semel.errors import StorageFullError, UnavailableError
from semel.tracing import span
from semel.values.model import Producer, Space
from semel.values.text import Input, Lane, Outcome
from semel.values.variant import AS_DEFINED, Variant
from semel.values.vectors import Computed, unit_rows

_FIRST_POLL_S = 0.01
_LAST_POLL_S = 0.25
"""Pauses between look-ups of vectors that others are computing; they grow from the first to the second."""

_PATIENCE_S = 10.0
"""What a job has computed is stored again and again for this long, while the database has no room or does not answer:
otherwise it would have to be computed again. A request is answered with the error at once."""


class CancelledError(Exception):
    """The `still_wanted` of the caller's terms returned False."""


@dataclass(frozen=True)
class LoadedModel:
    """A loaded backend and the vector spaces that it fills.

    Attributes:
        producer: recorded with each vector.
        prompts: prompt name → the text put before each input.
        spaces: prompt name → vector space.
        load_s: seconds that loading took.
    """

    backend: Backend
    producer: Producer
    prompts: Mapping[str, str]
    spaces: Mapping[str, Space]
    load_s: float


@dataclass(frozen=True)
class Terms:
    """For whom keys are computed, and how.

    Attributes:
        still_wanted: called after each batch; the work stops when it returns False.
        wants: whether somebody still waits for a key; one that nobody waits for fails when its turn has come.
        settled: called whenever more keys have an outcome.
        label, alone: as in `Engine.submit`.
        keep_vectors: hand over the vectors themselves, too, where they are exactly what is stored.
    """

    still_wanted: Callable[[], bool] = lambda: True
    wants: Callable[[bytes], bool] = lambda _key: True
    settled: Callable[[Computed], None] = lambda _done: None
    label: object = None
    alone: bool = False
    keep_vectors: bool = False


class Embedder:
    """Computes missing keys, each of them once among all embedders that share the claims.

    Args:
        engine: the engine of the device.
        store: receives the vectors batch by batch, so that a killed process loses only the batch in flight.
        claims: shared with the others that may compute the same keys.
        observe: called with `store` and the seconds that each write took.
    """

    def __init__(
        self,
        engine: Engine,
        store: VectorStore,
        claims: Claims,
        *,
        observe: Callable[[str, float], None] = lambda _stage, _seconds: None,
    ) -> None:
        self._engine = engine
        self._observe = observe
        self._store = store
        self._claims = claims
        self._in_bulk: dict[bytes, tuple[Submission, int]] = {}  # keys whose texts wait in this process's bulk lane

    def compute(
        self,
        model: LoadedModel,
        prompt_name: str,
        missing: Mapping[bytes, Input],
        *,
        lane: Lane,
        variant: Variant = AS_DEFINED,
        terms: Terms = Terms(),
        into: Computed | None = None,
    ) -> Computed:
        """Compute every key of `missing` into the cache, or record why it failed.

        Args:
            missing: key → text, all of one space.
            variant: of that space.
            terms: for whom, and how, these keys are computed.
            into: filled as the batches end, and returned; other threads may read it meanwhile.

        Raises:
            CancelledError: nobody wants the rest any more. In this and the next cases, the finished batches are stored.
            BackendError: the device is lost.
            StorageFullError: the database has no room.
        """
        done, left = Computed() if into is None else into, dict(missing)
        space = model.spaces[prompt_name].with_variant(variant)
        pause_s = _FIRST_POLL_S
        while left:
            lease = self._claims.take(list(left))
            mine = {key: left.pop(key) for key in list(left) if key in lease.keys}
            computed = bool(mine)
            if left and lane is Lane.INTERACTIVE:
                self._hurry(model, left)
            try:
                # Others may have stored some of these between the look-up and the claim.
                if self._collect(mine, done):
                    terms.settled(done)
                if mine:
                    self._compute_claimed(model, space, mine, lane, terms, lease, done)
            finally:
                lease.close()
            collected = self._collect(left, done)
            if collected:
                terms.settled(done)
            if collected or computed:
                pause_s = _FIRST_POLL_S
            if left:  # others are computing these
                if not terms.still_wanted():
                    raise CancelledError
                time.sleep(pause_s)
                pause_s = min(pause_s * 1.5, _LAST_POLL_S)
        return done

    def _hurry(self, model: LoadedModel, claimed: Mapping[bytes, Input]) -> None:
        """Let the texts that others have claimed, perhaps a bulk chunk of this worker, go before it."""
        here = [place for key in claimed if (place := self._in_bulk.get(key)) is not None]
        if here:
            self._engine.hurry(model.backend, here)

    def _compute_claimed(
        self,
        model: LoadedModel,
        space: Space,
        mine: Mapping[bytes, Input],
        lane: Lane,
        terms: Terms,
        lease: Lease,
        done: Computed,
    ) -> None:
        keys = list(mine)
        submission = self._engine.submit(
            model.backend,
            list(mine.values()),
            prompt=model.prompts[space.prompt_name],
            variant=space.variant,
            lane=lane,
            label=terms.label,
            alone=terms.alone,
            wanted=lambda i: terms.wants(keys[i]),
        )
        in_bulk = {} if lane is Lane.INTERACTIVE else {key: (submission, i) for i, key in enumerate(keys)}
        self._in_bulk |= in_bulk
        try:
            for part in submission:
                self._store_part(model, space, keys, part, done, lane=lane, terms=terms)
                terms.settled(done)  # first, because somebody waits for it
                lease.release([keys[i] for i in (*part.indices, *part.errors)])
                if not terms.still_wanted():
                    raise CancelledError
        finally:
            submission.cancel()
            for key in in_bulk:
                self._in_bulk.pop(key, None)

    def _store_part(
        self,
        model: LoadedModel,
        space: Space,
        keys: Sequence[bytes],
        part: Part,
        done: Computed,
        *,
        lane: Lane,
        terms: Terms,
    ) -> None:
        stored = [keys[i] for i in part.indices]
        if stored:
            started = time.perf_counter()
            vectors = unit_rows(part.vectors) if space.normalizes else part.vectors
            put = partial(
                self._store.put_many,
                *(space, stored, vectors),
                tokens=part.tokens,
                truncated=part.truncated,
                producer=model.producer,
            )
            with span("semel.store", model=space.model, texts=len(stored)):
                new = put() if lane is Lane.INTERACTIVE else _patiently(put, terms.still_wanted)
            self._observe("store", time.perf_counter() - started)
            if (
                terms.keep_vectors and new == len(stored) and self._store.keeps_exactly(space)
            ):  # nobody else's row was first
                done.vectors |= zip(stored, vectors, strict=True)
        for key, tokens, truncated in zip(stored, part.tokens, part.truncated, strict=True):
            done.add(key, Outcome.COMPUTED, tokens=tokens, truncated=truncated)
        for i, error in part.errors.items():
            done.fail(keys[i], error)

    def _collect(self, left: dict[bytes, Input], done: Computed) -> bool:
        """Move the keys that are in the cache by now from `left` to `done`; returns whether there were any."""
        if not left:
            return False
        keys = list(left)
        found = self._store.lookup(keys)
        for row in found.present.nonzero()[0].tolist():
            tokens, truncated = int(found.tokens[row]), bool(found.truncated[row])
            done.add(keys[row], Outcome.COALESCED, tokens=tokens, truncated=truncated)
            del left[keys[row]]
        return bool(found.present.any())


def _patiently(put: Callable[[], int], still_wanted: Callable[[], bool]) -> int:
    """The result of `put`; raises its last StorageFullError or UnavailableError."""
    retrying = Retrying(
        retry=retry_if_exception_type((StorageFullError, UnavailableError)),
        stop=lambda state: not still_wanted() or stop_after_delay(_PATIENCE_S)(state),
        wait=wait_fixed(0.5),
        reraise=True,
    )
    return retrying(put)
