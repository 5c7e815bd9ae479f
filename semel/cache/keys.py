"""Keys: what makes two texts, or two models, the same.

    fingerprint = SHA-256(canonical JSON of FingerprintSpec)      32 bytes
    key         = SHA-256(fingerprint ‖ text as UTF-8)            32 bytes

The fingerprint has a fixed length, so the join is injective. Texts are taken byte for byte: no lower-casing, no
stripping, no Unicode normalisation. A wrong hit is worse than a miss.
"""

import hashlib
from collections.abc import Sequence

from semel.errors import InvalidTextError
from semel.values import FingerprintSpec

KEY_BYTES = 32


def fingerprint(spec: FingerprintSpec) -> bytes:
    """The 32 bytes that stand for everything that changes a vector."""
    return hashlib.sha256(spec.canonical_json()).digest()


def text_key(fingerprint: bytes, text: str, index: int = 0) -> bytes:
    """The key of one text.

    Raises:
        InvalidTextError: not a string, empty, or holding a lone surrogate (half of a UTF-16 pair).
    """
    if not isinstance(text, str):
        raise InvalidTextError(index, f"is {type(text).__name__}, not a string")
    if not text:
        raise InvalidTextError(index, "is empty; leave it out, there is nothing to embed")
    try:
        return hashlib.sha256(fingerprint + text.encode()).digest()
    except UnicodeEncodeError as error:
        raise InvalidTextError(
            index,
            f"holds a lone surrogate (\\u{ord(text[error.start]):04x} at character {error.start}), "
            "which no encoding can carry; repair it where the text was decoded",
        ) from None


def text_keys(fingerprint: bytes, texts: Sequence[str]) -> list[bytes]:
    """`text_key` of each, in order. Raises InvalidTextError for the first bad one."""
    return [text_key(fingerprint, text, index) for index, text in enumerate(texts)]


def pair_key(fingerprint: bytes, query: str, document: str) -> bytes:
    """The key of a (query, document) score: the query's length keeps "ab"+"c" apart from "a"+"bc"."""
    head = query.encode()
    return hashlib.sha256(fingerprint + len(head).to_bytes(8, "little") + head + document.encode()).digest()


def unpack_keys(packed: bytes) -> list[bytes]:
    """Keys that were joined without separators, as chunk rows hold them."""
    return [packed[at : at + KEY_BYTES] for at in range(0, len(packed), KEY_BYTES)]
