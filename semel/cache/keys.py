"""Keys: what makes two texts, or two models, the same.

    fingerprint = SHA-256(canonical JSON of FingerprintSpec)      32 bytes
    key         = SHA-256(fingerprint ‖ text as UTF-8)            32 bytes
    key         = SHA-256(fingerprint ‖ length of query as 8 bytes, little-endian ‖ query ‖ document), for a pair

The fingerprint has a fixed length, so the join is injective. Texts are taken byte for byte: no lower-casing, no
stripping, no Unicode normalisation. A wrong hit is worse than a miss.
"""

import hashlib
from collections.abc import Sequence

from semel.errors import InvalidTextError
from semel.values.text import Input, Pair, lone_surrogate

KEY_BYTES = 32


def input_key(fingerprint: bytes, item: Input, index: int = 0) -> bytes:
    """The key of one input of a model: the `text_key` of a text, the `pair_key` of a pair.

    Args:
        index: position in the list that the caller received, for the error message.

    Raises:
        InvalidTextError: a text is not a string, is empty, or contains a lone surrogate (half of a UTF-16 pair).
    """
    if isinstance(item, Pair):
        for side, text in zip(("a query that ", "a document that "), item, strict=True):
            check_text(text, index, f"has {side}")
        return pair_key(fingerprint, item.query, item.document)
    check_text(item, index)
    return text_key(fingerprint, item)


def input_keys(fingerprint: bytes, items: Sequence[Input]) -> list[bytes]:
    """The `input_key` of each item, in order. Raises InvalidTextError for the first bad item."""
    return [input_key(fingerprint, item, index) for index, item in enumerate(items)]


def text_key(fingerprint: bytes, text: str) -> bytes:
    """The key of a text that `check_text` accepts."""
    return hashlib.sha256(fingerprint + text.encode()).digest()


def pair_key(fingerprint: bytes, query: str, document: str) -> bytes:
    """The key of a score for (query, document). The query's length keeps "ab"+"c" apart from "a"+"bc"."""
    head = query.encode()
    return hashlib.sha256(fingerprint + len(head).to_bytes(8, "little") + head + document.encode()).digest()


def check_text(text: str, index: int, where: str = "") -> None:
    """Check that a text can have a key: it is a string, not empty, and without a lone surrogate.

    Args:
        index: position of the text, for the error message.
        where: starts the message, such as `"has a query that "`.

    Raises:
        InvalidTextError: the text cannot have a key.
    """
    if not isinstance(text, str):
        raise InvalidTextError(index, f"{where}is {type(text).__name__}, not a string")
    if not text:
        raise InvalidTextError(index, f"{where}is empty; leave it out, there is nothing to embed")
    if surrogate := lone_surrogate(text):
        why = f"{where}contains {surrogate}, which UTF-8 cannot encode; fix the step that decoded the text"
        raise InvalidTextError(index, why)


def unpack_keys(packed: bytes) -> list[bytes]:
    """Split keys that were joined without separators, as chunk rows store them."""
    return [packed[at : at + KEY_BYTES] for at in range(0, len(packed), KEY_BYTES)]
