"""Webhooks: which addresses they may go to, and how they are signed."""

import base64
import ipaddress
import socket
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from semel.api.jobs import webhooks as module
from semel.api.jobs.webhooks import check_webhook, is_public, signature
from semel.errors import BadInputError
from semel.settings import Settings

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


# Addresses


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::1"]
)
def test_public_addresses(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "239.255.255.250",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::808:808",
        "168.63.129.16",
        "::ffff:168.63.129.16",
        "2002:a00:1::1",
    ],
)
def test_addresses_that_are_not(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let every host have these addresses."""
    found = [(socket.AF_INET6 if ":" in a else socket.AF_INET, 1, 6, "", (a, 443)) for a in addresses]
    look_up = SimpleNamespace(getaddrinfo=lambda *_, **__: found, SOCK_STREAM=socket.SOCK_STREAM)
    monkeypatch.setattr(module, "socket", look_up)


def settings(**changed: Any) -> Settings:
    return Settings(**{"webhook_secret": SecretStr(SECRET), **changed})


def test_a_public_host_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, "8.8.8.8", "2606:4700::1")
    check_webhook(settings(), "https://example.org/hook")


def test_a_silent_name_server_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answering = threading.Event()

    def silent(*_: object, **__: object) -> list[Any]:
        answering.wait(30)
        return []

    monkeypatch.setattr(module, "socket", SimpleNamespace(getaddrinfo=silent, SOCK_STREAM=socket.SOCK_STREAM))
    monkeypatch.setattr(module, "_LOOKUP_S", 0.05)
    try:
        with pytest.raises(BadInputError, match=r"no name server answered for 'example.org' within 0.05 s"):
            check_webhook(settings(), "https://example.org/hook")
    finally:
        answering.set()


def test_one_private_address_among_several_refuses_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, "8.8.8.8", "10.0.0.1")
    with pytest.raises(BadInputError, match=r"'example.org' resolves to the private address 10.0.0.1; to allow it"):
        check_webhook(settings(), "https://example.org/hook")


def test_an_address_with_a_zone_is_judged_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, "fe80::1%eth0")
    with pytest.raises(BadInputError, match="private address fe80::1;"):
        check_webhook(settings(), "https://example.org/")


def test_private_addresses_are_accepted_when_the_server_allows_them() -> None:
    check_webhook(settings(webhook_allow_private=True), "http://127.0.0.1:9/hook")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://example.org", "must be http:// or https://"),
        ("no url", "must be http"),
        ("http://", "must be http"),
        ("https:///path", "must be http"),
        ("http://user:password@example.org/", "without a password"),
        ("http://user@example.org/", "without a password"),
        ("http://exa\x00mple.org/", "is not a URL"),
        ("http://[::1", "is not a URL"),
        ("http://" + "x" * 70 + ".org", "has no address"),
    ],
)
def test_what_is_no_address_of_a_receiver_is_refused(url: str, message: str) -> None:
    with pytest.raises(BadInputError, match=f"webhook_url.*{message}"):
        check_webhook(settings(), url)


def test_a_host_without_an_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(module, "socket", SimpleNamespace(getaddrinfo=unknown, SOCK_STREAM=socket.SOCK_STREAM))
    with pytest.raises(BadInputError, match=r"the host 'nope.invalid' has no address: .*not known"):
        check_webhook(settings(), "http://nope.invalid/")


# Secrets and signatures


@pytest.mark.parametrize("secret", ["whsec_" + base64.b64encode(bytes(n)).decode() for n in (24, 64)])
def test_a_secret_has_24_to_64_bytes(secret: str) -> None:
    check_webhook(settings(webhook_secret=SecretStr(secret), webhook_allow_private=True), "http://127.0.0.1/")


@pytest.mark.parametrize(
    "secret", ["whsec_", "whsec_no base64", *(base64.b64encode(bytes(n)).decode() for n in (9, 65))]
)
def test_a_secret_that_is_none_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(BadInputError, match="must be 'whsec_' and 24 to 64 bytes in base64") as refused:
        check_webhook(settings(webhook_secret=SecretStr(secret)), "http://127.0.0.1/")
    assert secret.removeprefix("whsec_") not in str(refused.value) or secret == "whsec_"


def test_a_server_without_a_secret_cannot_send_webhooks() -> None:
    with pytest.raises(BadInputError, match="cannot send webhooks: SEMEL_WEBHOOK_SECRET is not set"):
        check_webhook(settings(webhook_secret=SecretStr("")), "http://127.0.0.1/")


def test_a_signature_is_that_of_standard_webhooks() -> None:
    # The example of https://github.com/standard-webhooks/standard-webhooks, libraries/python
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
