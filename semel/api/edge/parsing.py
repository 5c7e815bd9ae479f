"""JSON bodies: quickly, because Python's lock is held meanwhile, and nobody else is answered."""

import json
from typing import Any

import orjson

from semel.errors import BadInputError

_MOST_LISTS = 500_000
"""Lists and objects in a body. One of 4 MiB can hold 1.4 million, which take an eighth of a second; brackets in texts
count, too, but would have to be an eighth of all characters."""

_MOST_KEYS = 300_000
"""Keys of objects in a body. One of 4 MiB can hold 420,000 different ones, which take a fifth of a second."""

_MOST_FOR_JSON = 50_000
"""Lists and objects, or keys, of a body that Python's own parser, which is slower, parses if the quick one cannot."""

_MOST_KEYS_OF_ONE = 1000
"""Keys of one object. A request has some twenty; each further key is an error of its own, and 300,000 errors take a
second."""

_DEPTH = 4
"""How deep objects are looked at: deeper ones are the values of fields that are checked before them."""


class TooManyValuesError(BadInputError):
    """A body has more lists, objects or keys than any request needs."""


def parse_json(body: bytes) -> Any:
    """Parse a body. Numbers that are not finite and lone surrogates are accepted: the fields decide about them.

    Raises:
        json.JSONDecodeError, UnicodeDecodeError: it is not JSON.
        TooManyValuesError: parsing it, or describing what is wrong with it, would keep others waiting.
        RecursionError: lists in lists, some thousand deep.
    """
    lists = body.count(b"[") + body.count(b"{")
    keys = body.count(b'":') - body.count(b'\\":')  # those of JSON within texts do not count
    if lists > _MOST_LISTS or keys > _MOST_KEYS:
        raise TooManyValuesError(
            f"the body has about {lists:,} lists and objects and {keys:,} keys; at most {_MOST_LISTS:,} and "
            f"{_MOST_KEYS:,} are read at once: send it in parts, or send a job as NDJSON"
        )
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        if max(lists, keys) > _MOST_FOR_JSON:
            raise
        parsed = json.loads(body)
    if keys > _MOST_KEYS_OF_ONE and _has_wide(parsed, _DEPTH):
        raise TooManyValuesError(f"the body has an object with more than {_MOST_KEYS_OF_ONE:,} keys")
    return parsed


def _has_wide(value: Any, depth: int) -> bool:
    """Whether an object has very many keys."""
    if not depth or not isinstance(value, dict | list):
        return False
    if isinstance(value, list):
        return any(_has_wide(each, depth - 1) for each in value)
    return len(value) > _MOST_KEYS_OF_ONE or any(_has_wide(each, depth - 1) for each in value.values())
