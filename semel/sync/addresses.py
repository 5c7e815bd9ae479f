"""Addresses of sources and sinks as they are shown: without passwords."""

import re

_HIDDEN = "***"

_USER = re.compile(r"^([a-z][a-z0-9+.-]*://[^:/@]*):.*@", re.DOTALL)
"""A password may contain anything, other signs of URLs too: all up to the last @ is taken for it."""

_PARAMETER = re.compile(r"([?&](?:[a-z_]*password|[a-z_]*secret|[a-z_]*token|[a-z_]*key)=)[^&]*", re.IGNORECASE)


def without_password(address: str) -> str:
    """An address with `***` instead of its password."""
    return _PARAMETER.sub(rf"\1{_HIDDEN}", _USER.sub(rf"\1:{_HIDDEN}@", address))


def lacks_password(address: str) -> bool:
    """Whether an address had a password that is hidden now."""
    return _HIDDEN in address
