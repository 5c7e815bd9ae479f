"""What keys are made with."""

import hashlib


def key_base(fingerprint: bytes, namespace: str) -> bytes:
    """What the keys of a namespace are made with, 32 bytes: the fingerprint, joined with the namespace if there is one.

    The vectors of a private namespace are those that others get too, under keys that nobody else can ask for.

    Args:
        fingerprint: SHA-256, 32 bytes.
        namespace: empty for the keys that all share.
    """
    if not namespace:
        return fingerprint
    return hashlib.sha256(b"semel namespace " + namespace.encode() + b"\0" + fingerprint).digest()
