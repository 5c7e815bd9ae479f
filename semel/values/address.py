"""Addresses of hosts."""

import ipaddress
import re


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address. A name other than localhost counts as public."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def without_password(url: str) -> str:
    """A URL as it may be shown: its password is replaced by asterisks."""
    return re.sub(r"(://[^:/@]*):.*@", r"\1:***@", url)
