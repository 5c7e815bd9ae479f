"""The card that a worker publishes about itself."""

import json
from dataclasses import asdict, dataclass, field

from semel.tasks.fleet.meter import Work
from semel.values.device import Measured


@dataclass(frozen=True)
class WorkerCard:
    """What a worker says of itself.

    Attributes:
        state: `loading` until the default model is in memory, then `ready`; work may be sent before, and waits.
            `failed` when it ended because its device is not fit.
        why: of device and dtype; of a failed one, what is wrong with it.
        models: names that it serves.
        about: name and memory of the device.
        software: its device imitates a GPU on the CPU; work goes there last.
        spaces: fingerprints that it serves, in hex.
        loaded: names in memory.
        load_s: what loading them took.
        memory_bytes: of the device, or of the process where both share it.
        gpu_utilization: 0 to 1, where the driver tells.
        texts_per_s: measured over its life, while the device was busy.
        progress: (job id, position, texts that are done) of the chunks in hand.
        measured: what `semel devices --measure` found for this device, if it was run.
    """

    id: str
    device: str
    host: str
    pid: int
    started_at: float
    state: str = "ready"
    dtype: str = ""
    why: str = ""
    about: str = ""
    software: bool = False
    models: list[str] = field(default_factory=list)
    spaces: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    load_s: float = 0.0
    memory_bytes: int = 0
    gpu_utilization: float | None = None
    texts_per_s: float = 0.0
    memory_halvings: int = 0
    progress: list[tuple[str, int, int]] = field(default_factory=list)
    measured: Measured | None = None
    work: Work = field(default_factory=Work)

    def serves(self, model: str, fingerprint: bytes) -> bool:
        """Whether it makes vectors of this space, under this name: that is how it is asked for them."""
        return model in self.models and fingerprint.hex() in self.spaces

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: bytes | str) -> "WorkerCard":
        """A card of another version may lack fields, or have more."""
        values = {key: value for key, value in json.loads(text).items() if key in cls.__dataclass_fields__}
        measured = values.get("measured")
        work = Work(**{k: v for k, v in values.get("work", {}).items() if k in Work.__dataclass_fields__})
        return cls(**{**values, "work": work, "measured": Measured(**measured) if measured else None})
