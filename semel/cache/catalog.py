"""The catalog: which models are served, and which vector space each of them means.

Workers publish it when they start; the API reads it, and so needs neither torch nor weights to compute a key.
"""

import json
import time
from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import delete, select, update

from semel.cache.schema import models
from semel.db import Database
from semel.errors import BadInputError, FingerprintError, UnknownModelError
from semel.kept import Kept
from semel.values.device import device_kind
from semel.values.model import Space

LIVE_S = 20.0
"""A publication that was not repeated for this long is dead, and other weights may take the name."""

_KEPT_S = 1.0
"""The API's copy is this old at the most: one question to the database a second, however many requests come."""

InputType = Literal["query", "document"]

_PROMPT_NAMES: dict[InputType, tuple[str, ...]] = {
    "query": ("query", "search_query"),
    "document": ("document", "passage", "search_document"),
}
"""What model authors call them, the commonest first."""


class Catalog:
    """Model name and prompt name → space.

    Args:
        default_model: what a caller means who names none.
    """

    def __init__(self, db: Database, *, default_model: str) -> None:
        self._db = db
        self._default = default_model
        self._seen: Kept[dict[tuple[str, str], Any]] = Kept(_KEPT_S)

    def publish(self, spaces: Sequence[Space], *, device: str) -> None:
        """Announce what this worker serves.

        Raises:
            FingerprintError: a live worker serves other weights under one of the names; nothing is published.
        """
        now = time.time()
        with self._db.write(reserve=True) as conn:
            for space in spaces:
                same = (models.c.name == space.model) & (models.c.prompt_name == space.prompt_name)
                held = conn.execute(select(models).where(same)).first()
                if held and held.fingerprint != space.fingerprint and held.seen_at > now - LIVE_S:
                    raise FingerprintError(_two_weights(space, held))
                conn.execute(delete(models).where(same))
                # This device serves the name itself now: what it once served in its place is a leftover.
                conn.execute(delete(models).where(models.c.name == f"{space.model}@{device_kind(device)}"))
                conn.execute(models.insert().values({**_row(space), "device": device, "seen_at": now}))
        self._seen.forget()

    def touch(self, spaces: Sequence[Space]) -> None:
        """Repeat the publication: this worker is alive."""
        self._mark(spaces, time.time())

    def retire(self, spaces: Sequence[Space]) -> None:
        """This worker stops; the names stay known, other weights may take them at once."""
        self._mark(spaces, 0.0)

    def _mark(self, spaces: Sequence[Space], seen_at: float) -> None:
        with self._db.write(reserve=True) as conn:
            for space in spaces:
                conn.execute(update(models).where(models.c.fingerprint == space.fingerprint).values(seen_at=seen_at))

    def space(self, model: str | None = None, prompt_name: str = "", *, device: str = "auto") -> Space:
        """The space of a model; see `find`. Raises UnknownModelError when no worker ever served it."""
        return self.find(model, prompt_name, device=device)[0]

    def space_for_input(self, model: str | None, input_type: InputType | None, *, device: str = "auto") -> Space:
        """The space of the prompt that this model has for such texts, else the one without a prompt.

        Raises UnknownModelError.
        """
        named = self.space(model, device=device).model
        names = () if input_type is None else _PROMPT_NAMES[input_type]
        rows = self._rows(named, "")
        return self.space(named, next((name for name in names if (named, name) in rows), ""))

    def find(self, model: str | None, prompt_name: str = "", *, device: str = "auto") -> tuple[Space, str]:
        """The space, and the device that served it last.

        A model with a source of its own for a device is `NAME@DEVICE` there, another space. It is taken when that
        device is asked for, or when no worker ever served NAME itself.

        Raises UnknownModelError.
        """
        model = model or self._default
        _check_name(model)
        _check_name(prompt_name)
        rows = self._rows(model, prompt_name)
        own = sorted(name for name, prompt in rows if prompt == prompt_name and name.startswith(f"{model}@"))
        names = [name for name in own if name == f"{model}@{device_kind(device)}"] + [model] + own
        row = next((rows[name, prompt_name] for name in names if (name, prompt_name) in rows), None)
        if row is None:
            prompts = [prompt for name, prompt in rows if name == model and prompt]
            if (model, "") in rows or prompts:
                raise UnknownModelError(f"{model} (prompt {prompt_name})", [f"{model} (prompt {p})" for p in prompts])
            raise UnknownModelError(model, list({name for name, _ in rows}))
        return _space(row), row.device

    def _rows(self, model: str, prompt_name: str) -> dict[tuple[str, str], Any]:
        """Every row by name and prompt; read again when it is old, or lacks what is asked for."""
        rows = self._seen.get(self._read)
        return rows if (model, prompt_name) in rows else self._seen.put(self._read())

    def _read(self) -> dict[tuple[str, str], Any]:
        with self._db.read() as conn:
            found = conn.execute(select(models).order_by(models.c.name, models.c.prompt_name)).all()
        return {(row.name, row.prompt_name): row for row in found}

    def all(self) -> list[tuple[Space, float]]:
        """Every space that was ever published, with the time it was last seen (Unix seconds, 0 for retired)."""
        with self._db.read() as conn:
            rows = conn.execute(select(models).order_by(models.c.name, models.c.prompt_name)).all()
        return [(_space(row), row.seen_at) for row in rows]


def _check_name(name: str) -> None:
    """No database takes such a name; the message does not repeat it, since no answer could carry it either."""
    if not name.isprintable():
        raise BadInputError("the name of a model or prompt holds a character that cannot be printed")


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


def _two_weights(space: Space, held: Any) -> str:
    ours, theirs = json.loads(space.spec_json), json.loads(held.spec_json)
    differs = ", ".join(k for k in ours if ours[k] != theirs.get(k)) or "format"
    return (
        f"a live worker serves {space.model!r} with fingerprint {held.fingerprint.hex()}, and the files here give "
        f"{space.fingerprint.hex()} (they differ in: {differs}). Give one of the two another name in semel.toml, "
        "or stop the other worker first"
    )
