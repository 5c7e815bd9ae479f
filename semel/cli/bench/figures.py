"""What was measured: figures with their spread and their limit, and the file that keeps them."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from semel.atomic_write import atomic_write
from semel.errors import BadInputError

_FORMAT = 1
"""The number of the file's format; a file of another format cannot be compared."""


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        group, name: what was measured, such as `batches` and `32 texts`.
        device, model: where; empty if it does not depend on them.
        unit: such as `ms` or `texts/s`.
        values: one for each round, in the order of the rounds.
        higher_is_better: False for times and memory.
        limit: what this machine allows at best, in the same unit; None if it was not measured.
        limit_name: what the limit is.
    """

    group: str
    name: str
    device: str
    model: str
    unit: str
    values: Sequence[float]
    higher_is_better: bool = False
    limit: float | None = None
    limit_name: str = ""

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What makes it comparable with a figure of another run."""
        return self.group, self.name, self.device, self.model

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float | None:
        """The range of the rounds as a share of their median; None for a single round, whose noise is unknown."""
        if len(self.values) < 2 or not self.median:
            return None
        return (max(self.values) - min(self.values)) / abs(self.median)


@dataclass(frozen=True)
class Run:
    """All figures of one run, and what is needed to understand them.

    Attributes:
        about: the machine and the versions: name → value.
        left_out: what could not be measured → why.
    """

    about: dict[str, str]
    figures: Sequence[Figure]
    left_out: dict[str, str]

    def write(self, path: Path) -> None:
        """Write the run as JSON. Raises OSError."""
        content = {"format": _FORMAT, **asdict(self)}
        with atomic_write(path) as file:
            file.write(json.dumps(content, indent=1).encode())


def read_run(path: Path) -> Run:
    """Read what `Run.write` wrote. Raises BadInputError if it is something else, or OSError."""
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        if content["format"] != _FORMAT:
            raise BadInputError(
                f"{path} has format {content['format']}, and this version reads {_FORMAT}: measure again"
            )
        figures = [Figure(**each) for each in content["figures"]]
        if not all(figure.values for figure in figures):
            raise ValueError("a figure without values")
        return Run(content["about"], figures, content["left_out"])
    except (ValueError, TypeError, KeyError) as error:
        raise BadInputError(f"{path} is no result of 'semel bench' ({error}); give the bench.json of a run") from None
