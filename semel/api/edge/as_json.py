"""Answers as JSON. float32 numbers have as many digits as a float32 needs, half of what Python would write."""

import json
from typing import Any

import orjson


def as_json(value: Any) -> bytes:
    """UTF-8 bytes of dicts, lists, texts, numbers and C-contiguous numpy arrays.

    Reading an array's numbers back as float32 gives the same bits.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:  # half a surrogate pair in a client's own name for something: no UTF-8, but JSON
        return json.dumps(value, default=lambda array: array.tolist()).encode()
