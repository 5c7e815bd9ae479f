"""The catalog: the models that are served, and the vector space of each model and prompt.

Workers publish their spaces when they start. The API reads them, so it computes keys without torch or weights.
"""

import json
from collections.abc import Collection, Sequence
from copy import copy
from typing import Any, Literal

from sqlalchemy import delete, select, update

from semel.cache.schema import models
from semel.clock import time_of
from semel.db import Database
from semel.errors import BadInputError, FingerprintError, UnavailableError, UnknownModelError, UnknownPromptError
from semel.kept import Kept
from semel.values.device import device_kind
from semel.values.model import Kind, Space, base_name

LIVE_S = 20.0
"""A publication that has not been renewed for this long is dead: other weights may then take its name."""

_PUBLISH_LOCK = 5363
"""PostgreSQL's advisory lock for publishing: two workers that start together must not both insert a name."""

_KEPT_S = 1.0
"""The API's copy is at most this old: the database answers one query per second, whatever the number of requests."""

InputType = Literal["query", "document"]

_PROMPT_NAMES: dict[InputType, tuple[str, ...]] = {
    "query": ("query", "search_query"),
    "document": ("document", "passage", "search_document"),
}
"""What model authors call the prompt for each input type, the most common name first."""


def prompt_for(input_type: str, prompts: Collection[str]) -> str:
    """The name of the prompt for an input type, among the prompts of a model; "" if it has none for it.

    Args:
        input_type: `query` or `document`, or `none` for no prompt.

    Raises:
        BadInputError: there is no such input type.
    """
    if input_type == "none":
        return ""
    if input_type not in _PROMPT_NAMES:
        raise BadInputError(f"there is no input type {input_type!r} (known: {', '.join(_PROMPT_NAMES)}, none)")
    return next((name for name in _PROMPT_NAMES[input_type] if name in prompts), "")


class Catalog:
    """Vector spaces by model name and prompt name.

    Args:
        default_model: the model of a caller that names none.
        configured: the models that this process's configuration names.
    """

    def __init__(self, db: Database, *, default_model: str, configured: Collection[str] = ()) -> None:
        self._db = db
        self._default = default_model
        self._configured = frozenset(configured)
        self._seen: Kept[dict[tuple[str, str], Any]] = Kept(_KEPT_S)
        self._namespace = ""

    def within(self, namespace: str) -> "Catalog":
        """The same catalog, whose spaces make the keys of a namespace."""
        scoped = copy(self)
        scoped._namespace = namespace
        return scoped

    def publish(self, spaces: Sequence[Space], *, device: str) -> None:
        """Publish the spaces that this worker serves.

        Raises:
            FingerprintError: a live worker serves other weights under one of the names; nothing is published.
        """
        with self._db.write(reserve=True) as conn:
            now = time_of(conn)
            if self._db.dialect == "postgresql":  # SQLite has one writer at a time
                conn.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_PUBLISH_LOCK})")
            for space in spaces:
                same = (models.c.name == space.model) & (models.c.prompt_name == space.prompt_name)
                published = conn.execute(select(models).where(same)).first()
                if published and published.fingerprint != space.fingerprint and published.seen_at > now - LIVE_S:
                    raise FingerprintError(_other_weights(space, published))
                conn.execute(delete(models).where(same))
                # The device serves the name itself now: a NAME@DEVICE that it served before is a leftover.
                conn.execute(delete(models).where(models.c.name == f"{space.model}@{device_kind(device)}"))
                conn.execute(models.insert().values({**_row(space), "device": device, "seen_at": now}))
        self._seen.forget()

    def touch(self, spaces: Sequence[Space]) -> None:
        """Renew the publication of these spaces: their worker is alive."""
        self._set_seen_at(spaces, self._db.now())

    def retire(self, spaces: Sequence[Space]) -> None:
        """Record that a worker stops: the names stay known, and other weights may take them at once."""
        self._set_seen_at(spaces, 0.0)

    def _set_seen_at(self, spaces: Sequence[Space], seen_at: float) -> None:
        with self._db.write(reserve=True) as conn:
            for space in spaces:
                conn.execute(update(models).where(models.c.fingerprint == space.fingerprint).values(seen_at=seen_at))

    def space(self, model: str | None = None, prompt_name: str = "", *, device: str = "auto") -> Space:
        """The space of a model and prompt, chosen as in `find`.

        Raises:
            UnknownModelError: no worker ever served this model.
            UnknownPromptError: it has no such prompt.
            UnavailableError: no worker ever served it, though it is configured.
            BadInputError: a name contains a character that cannot be printed.
        """
        return self.find(model, prompt_name, device=device)[0]

    def space_of_kind(self, kind: Kind, model: str | None = None, prompt_name: str = "") -> Space:
        """The space of a model of this kind: the one that is named, else the default, else the only one.

        Raises:
            BadInputError: the named model is of another kind; or none is named, and there is none or several.
            UnknownModelError, UnknownPromptError, UnavailableError: as of `space`.
        """
        model = model or self.only_model(kind)
        space = self.space(model, prompt_name)
        space.check_kind(kind)
        return space

    def only_model(self, kind: Kind) -> str:
        """The model that a caller means who names none: the default if it is of this kind, or the only one that is.

        Models that no live worker serves count if no live one is of this kind. It is the default if there is none.

        Raises:
            BadInputError: there are several; the message names them.
        """
        rows = [row for row in self._seen.get(self._read).values() if _space(row).kind == kind]
        alive = [row for row in rows if row.seen_at > self._db.now() - LIVE_S] if len(rows) > 1 else []
        known = {base_name(row.name) for row in alive or rows}
        if self._default in {base_name(row.name) for row in rows} or not known:
            return self._default
        if len(known) > 1:
            raise BadInputError(f"name one of the models of kind {kind!r}: {', '.join(sorted(known))}")
        return next(iter(known))

    def space_for_input(self, model: str | None, input_type: InputType | None, *, device: str = "auto") -> Space:
        """The space of the model's prompt for this input type, or the space without a prompt if it has none.

        Raises:
            UnknownModelError, UnavailableError: as of `space`.
            BadInputError: the name contains a character that cannot be printed.
        """
        chosen = self.space(model, device=device).model
        prompts = [prompt for name, prompt in self._rows(chosen, "") if name == chosen]
        return self.space(chosen, prompt_for(input_type or "none", prompts))

    def find(self, model: str | None, prompt_name: str = "", *, device: str = "auto") -> tuple[Space, str]:
        """The space of a model and prompt, and the device that served it last.

        A model that has its own source for a device is served there as `NAME@DEVICE`, which is another space. That
        space is chosen if `device` is this device, or if no worker ever served NAME itself.

        Raises:
            UnknownModelError: no worker ever served this model.
            UnknownPromptError: it has no such prompt.
            UnavailableError: no worker ever served it, though it is configured.
            BadInputError: a name contains a character that cannot be printed.
        """
        model = model or self._default
        _check_name(model)
        _check_name(prompt_name)
        rows = self._rows(model, prompt_name)
        own = sorted(name for name, prompt in rows if prompt == prompt_name and name.startswith(f"{model}@"))
        names = [name for name in own if name == f"{model}@{device_kind(device)}"] + [model] + own
        row = next((rows[name, prompt_name] for name in names if (name, prompt_name) in rows), None)
        if row is None:
            served = {name for name, _ in rows}
            if prompts := {prompt for name, prompt in rows if name == model or name.startswith(f"{model}@")}:
                raise UnknownPromptError(model, prompt_name, [prompt for prompt in prompts if prompt])
            if model in self._configured:
                raise UnavailableError(
                    f"model {model!r} is configured, and no worker has served it yet; start one: semel worker"
                )
            raise UnknownModelError(model, list(served))
        return _space(row).within(self._namespace), row.device

    def _rows(self, model: str, prompt_name: str) -> dict[tuple[str, str], Any]:
        """Every row by name and prompt, read again if the kept copy is too old or lacks this model and prompt."""
        rows = self._seen.get(self._read)
        return rows if (model, prompt_name) in rows else self._seen.put(self._read())

    def _read(self) -> dict[tuple[str, str], Any]:
        with self._db.read() as conn:
            found = conn.execute(select(models).order_by(models.c.name, models.c.prompt_name)).all()
        return {(row.name, row.prompt_name): row for row in found}

    def all(self) -> list[tuple[Space, float]]:
        """Every space that was ever published, with the time it was last seen (Unix seconds; 0 after `retire`)."""
        with self._db.read() as conn:
            rows = conn.execute(select(models).order_by(models.c.name, models.c.prompt_name)).all()
        return [(_space(row), row.seen_at) for row in rows]


def _check_name(name: str) -> None:
    """Refuse a name that no database accepts; the message does not repeat it, because no answer could carry it.

    Raises BadInputError.
    """
    if not name.isprintable():
        raise BadInputError("a model or prompt name contains a character that cannot be printed; remove it")


def _row(space: Space) -> dict[str, Any]:
    return {
        "name": space.model,
        "prompt_name": space.prompt_name,
        "fingerprint": space.fingerprint,
        "dim": space.dim,
        "max_tokens": space.max_tokens,
        "precision": space.precision,
        "spec_json": space.spec_json,
        "matryoshka_dims": json.dumps(space.matryoshka_dims),
    }


def _space(row: Any) -> Space:
    return Space(
        fingerprint=row.fingerprint,
        model=row.name,
        prompt_name=row.prompt_name,
        dim=row.dim,
        max_tokens=row.max_tokens,
        precision=row.precision,
        spec_json=row.spec_json,
        matryoshka_dims=tuple(json.loads(row.matryoshka_dims)),
    )


def _other_weights(space: Space, published: Any) -> str:
    ours, theirs = json.loads(space.spec_json), json.loads(published.spec_json)
    differs = ", ".join(k for k in ours if ours[k] != theirs.get(k)) or "format"
    return (
        f"a live worker serves {space.model!r} with fingerprint {published.fingerprint.hex()}, but the files here "
        f"give {space.fingerprint.hex()} (they differ in: {differs}). Give one of the two another name in semel.toml, "
        "or stop the other worker first"
    )
