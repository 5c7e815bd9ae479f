"""The card that a worker publishes about itself."""

import json
from dataclasses import asdict, dataclass, field

from semel.tasks.fleet.meter import Work
from semel.values.device import Measured


@dataclass(frozen=True)
class ModelRate:
    """How fast a device computes with a model.

    Attributes:
        tokens_per_s: of the device's time.
        tokens_per_text: on average.
    """

    tokens_per_s: float
    tokens_per_text: float


@dataclass(frozen=True)
class WorkerCard:
    """What a worker reports about itself.

    Attributes:
        started_at: Unix seconds.
        beats: heartbeats since the start, with this one; 0 in the card of an older version.
        state: `loading` from the start until the default model is in memory, then `ready`; work that is sent earlier
            waits. It serves no models until their files are downloaded and hashed. `failed` if the worker ended because
            its device or its models cannot be used.
        why: the reason for the device and dtype; for a failed worker, what went wrong.
        about: name and memory of the device.
        software: the device is a GPU imitated on the CPU; it gets work last.
        models: names of the models that the worker serves.
        spaces: fingerprints of the vector spaces that it serves, in hex.
        loaded: names of the models in memory.
        load_s: seconds that loading them took.
        memory_bytes: memory in use on the device, or by the process where the device shares its memory.
        gpu_utilization: 0 to 1; None if the driver does not report it.
        texts_per_s: average since the worker started, over the time that the device was busy.
        rates: model → how fast it computes here, measured since the worker started or by an earlier one.
        memory_halvings: how often the device ran out of memory, so that a batch was halved.
        polled_s: seconds since its consumer last had an answer from its queues.
        held_texts: texts of requests that the worker has taken and not answered yet.
        progress: (job id, position, finished texts) of each chunk that the worker is computing.
        measured: the result of `semel devices --measure` for this device, if it was run.
        work: counters since the worker started.
    """

    id: str
    device: str
    host: str
    pid: int
    started_at: float
    beats: int = 0
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
    rates: dict[str, ModelRate] = field(default_factory=dict)
    memory_halvings: int = 0
    polled_s: float = 0.0
    held_texts: int = 0
    progress: list[tuple[str, int, int]] = field(default_factory=list)
    measured: Measured | None = None
    work: Work = field(default_factory=Work)

    def serves(self, model: str, fingerprint: bytes) -> bool:
        """Whether the worker makes vectors of this space under this model name; requests name both."""
        return model in self.models and fingerprint.hex() in self.spaces

    def to_json(self) -> str:
        """The card as it is kept in Redis."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: bytes | str) -> "WorkerCard":
        """The card in `text`; fields that are missing or unknown, as in a card of another version, are tolerated."""
        values = {key: value for key, value in json.loads(text).items() if key in cls.__dataclass_fields__}
        measured = values.get("measured")
        work = Work(**{k: v for k, v in values.get("work", {}).items() if k in Work.__dataclass_fields__})
        rates = {model: ModelRate(**rate) for model, rate in values.get("rates", {}).items()}
        return cls(**{**values, "rates": rates, "work": work, "measured": Measured(**measured) if measured else None})
