"""Compute what is missing, once: claim, compute, store, release; then collect what others were computing.

Used by the worker's tasks and by `semel embed --local`; they differ in the claims they bring.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from semel.backends.base import Backend
from semel.backends.engine import Engine
from semel.backends.submission import Part, Submission
from semel.cache.claims import Claims, Lease
from semel.cache.store import VectorStore
from semel.tracing import span
from semel.values.model import Producer, Space
from semel.values.text import Input, Lane, Outcome
from semel.values.vectors import Computed

_FIRST_LOOK_S = 0.01
_LAST_LOOK_S = 0.25
"""How often to look whether somebody else's vectors have arrived: backed off between these."""


class CancelledError(Exception):
    """The caller's `still_wanted` said no."""


@dataclass(frozen=True)
class LoadedModel:
    """A backend that is loaded, and the spaces it fills."""

    backend: Backend
    producer: Producer
    prompts: Mapping[str, str]
    spaces: Mapping[str, Space]
    load_s: float


class Embedder:
    """Computes missing keys, each once among all who share the claims.

    Args:
        engine: the device's.
        store: where vectors go, batch by batch: a kill loses the batch in flight and no more.
        claims: who computes what.
        observe: told `store`, and the seconds that it took.
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

    def compute(
        self,
        model: LoadedModel,
        prompt_name: str,
        missing: Mapping[bytes, Input],
        *,
        lane: Lane,
        still_wanted: Callable[[], bool] = lambda: True,
        label: object = None,
        alone: bool = False,
        into: Computed | None = None,
    ) -> Computed:
        """Bring every key of `missing` into the cache, or say why not.

        Args:
            missing: key → text, of one space; each key once.
            still_wanted: asked after each batch; False stops the work.
            label, alone: as in `Engine.submit`.
            into: filled as the batches end, and returned; others may look at it meanwhile.

        Raises:
            CancelledError: not wanted any more. What was computed is stored.
            BackendError: the device is lost. Likewise.
            StorageFullError: no room. Likewise.
        """
        done, left = Computed() if into is None else into, dict(missing)
        pause_s = _FIRST_LOOK_S
        while left:
            lease = self._claims.take(list(left))
            mine = {key: left.pop(key) for key in list(left) if key in lease.keys}
            try:
                # Between the look-up and the claim somebody may have stored some of them.
                self._collect(mine, done)
                if mine:
                    submission = self._engine.submit(
                        model.backend,
                        list(mine.values()),
                        prompt=model.prompts[prompt_name],
                        lane=lane,
                        label=label,
                        alone=alone,
                    )
                    self._run(model, model.spaces[prompt_name], list(mine), submission, lease, still_wanted, done)
            finally:
                lease.close()
            if self._collect(left, done) or mine:
                pause_s = _FIRST_LOOK_S
            if left:  # somebody else has these in hand
                if not still_wanted():
                    raise CancelledError
                time.sleep(pause_s)
                pause_s = min(pause_s * 1.5, _LAST_LOOK_S)
        return done

    def _run(
        self,
        model: LoadedModel,
        space: Space,
        keys: Sequence[bytes],
        submission: Submission,
        lease: Lease,
        still_wanted: Callable[[], bool],
        done: Computed,
    ) -> None:
        try:
            for part in submission:
                self._store_part(model, space, keys, part, done)
                lease.release([keys[i] for i in (*part.indices, *part.errors)])
                if not still_wanted():
                    raise CancelledError
        finally:
            submission.cancel()

    def _store_part(self, model: LoadedModel, space: Space, keys: Sequence[bytes], part: Part, done: Computed) -> None:
        stored = [keys[i] for i in part.indices]
        if stored:
            started = time.perf_counter()
            with span("semel.store", model=space.model, texts=len(stored)):
                self._store.put_many(
                    space, stored, part.vectors, tokens=part.tokens, truncated=part.truncated, producer=model.producer
                )
            self._observe("store", time.perf_counter() - started)
        for key, tokens, truncated in zip(stored, part.tokens, part.truncated, strict=True):
            done.add(key, Outcome.COMPUTED, tokens=tokens, truncated=truncated)
        for i, error in part.errors.items():
            done.fail(keys[i], error)

    def _collect(self, left: dict[bytes, Input], done: Computed) -> bool:
        """Move the keys that have a row by now from `left` to `done`; whether there were any."""
        if not left:
            return False
        keys = list(left)
        found = self._store.lookup(keys)
        for row in found.present.nonzero()[0].tolist():
            tokens, truncated = int(found.tokens[row]), bool(found.truncated[row])
            done.add(keys[row], Outcome.COALESCED, tokens=tokens, truncated=truncated)
            del left[keys[row]]
        return bool(found.present.any())
