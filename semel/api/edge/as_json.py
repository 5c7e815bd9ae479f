"""JSON for answers. A float32 gets the digits that it needs, half as many as Python would write."""

import json
from typing import Any

import orjson


def as_json(value: Any) -> bytes:
    """Encode dicts, lists, texts, numbers and C-contiguous numpy arrays as UTF-8 JSON.

    The numbers of a float32 array have the same bits when they are read back as float32.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError:  # a lone surrogate in a client's id: JSON can escape it, UTF-8 cannot hold it
        return json.dumps(value, default=lambda array: array.tolist()).encode()
