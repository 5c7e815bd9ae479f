"""Addresses of hosts."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address. A name other than localhost counts as public."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
