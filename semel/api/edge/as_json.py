"""JSON for answers. A float32 gets the digits that it needs, half as many as Python would write."""

import json
import math
from typing import Any

import orjson

_LINE_ENDS = [(end.encode(), f"\\u{ord(end):04x}".encode()) for end in ("\x85", "\u2028", "\u2029")]
"""Python's `splitlines`, and with it the line loops of HTTP clients, end a line at these, too."""


def as_json(value: Any) -> bytes:
    """Encode dicts, lists, texts, numbers and C-contiguous numpy arrays as UTF-8 JSON.

    The numbers of a float32 array have the same bits when they are read back as float32. The result is one line for
    every reader: the characters that some take for the end of a line are escaped.
    """
    try:
        encoded = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
        for raw, escaped in _LINE_ENDS:
            if raw in encoded:
                encoded = encoded.replace(raw, escaped)
        return encoded
    except orjson.JSONEncodeError:  # a lone surrogate in a client's id, which JSON can escape; or a number of 65 bits
        return json.dumps(_finite(value), default=lambda array: _finite(array.tolist())).encode()


def _finite(value: Any) -> Any:
    """The value with null for each NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value
