"""What a collection depends on besides its model: how documents are split, and what is kept of them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from semel.sync.sources import shown_source
from semel.values.sync import ChunkOptions, SyncEntry

_SPLITTER = "semantic-text-splitter"


@dataclass(frozen=True)
class Spec:
    """How documents become chunks.

    Attributes:
        splitter: the package that splits, with its version: another one may split in other places.
        payload: the fields that are kept.
        source, query, id, version, text_field: where documents are, and what identifies and makes them: versions of
            another place mean nothing.
    """

    chunk: ChunkOptions
    splitter: str
    payload: tuple[str, ...]
    source: str
    query: str | None
    id: str
    version: str | None
    text_field: str

    @classmethod
    def of(cls, entry: SyncEntry) -> "Spec":
        """The spec of a sync, with the splitter that is installed here."""
        try:
            installed = version(_SPLITTER)
        except PackageNotFoundError:
            installed = "none"
        return cls(
            entry.chunk,
            f"{_SPLITTER} {installed}",
            entry.payload,
            shown_source(entry.source),
            entry.query,
            entry.id,
            entry.version,
            entry.text_field,
        )

    def as_json(self) -> dict[str, Any]:
        """The spec as the ledger keeps it."""
        return {**asdict(self), "payload": list(self.payload)}

    def differences(self, kept: Mapping[str, Any]) -> list[str]:
        """What differs from a spec in the ledger, one sentence each; `{}` is that of a change that was cut off."""
        if not kept:
            return ["an earlier run with other options was cut off: every document is read again"]
        return [
            f"{name} was {_shown(kept.get(name))} and is {_shown(value)}: every document is read again"
            for name, value in self.as_json().items()
            if kept.get(name) != value
        ]


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in value.items() if each) or "what the model reads"
    return ", ".join(map(str, value)) or "nothing" if isinstance(value, list) else str(value)
