"""The process that reads a stranger's Parquet file, see `semel.rows.isolated_parquet`."""

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from semel.errors import BadInputError
from semel.rows.bounded_parquet import BoundedParquet
from semel.rows.isolated_parquet import NAMES, REFUSED, TOO_LARGE

_MOST_BYTES = 2 << 30
"""Memory of the child, on Linux. The pieces keep it far below, but lists in one row may hold any number of values."""


def main(path: str, columns: Sequence[str]) -> int:
    """Write the rows of a file to the standard output; returns the exit code."""
    import pyarrow as pa

    if sys.platform == "linux":
        import resource

        with suppress(ValueError):  # there is a smaller limit
            resource.setrlimit(resource.RLIMIT_DATA, (_MOST_BYTES, _MOST_BYTES))
    try:
        with BoundedParquet(Path(path), columns=None if list(columns) == ["*"] else columns) as file:
            schema = file.schema.with_metadata({NAMES: json.dumps(file.names)})
            with pa.ipc.new_stream(sys.stdout.buffer, schema) as writer:
                for batch, is_too_large in file.batches():
                    about, piece = ({TOO_LARGE: b""}, batch.slice(0, 0)) if is_too_large else (None, batch)
                    writer.write_batch(piece.replace_schema_metadata(schema.metadata), custom_metadata=about)
    except BadInputError as error:
        sys.stderr.write(str(error))
        return REFUSED
    except BrokenPipeError:  # nobody reads the rest
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
