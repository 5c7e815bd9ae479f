"""Webhooks: a signed POST when a job has ended, as https://www.standardwebhooks.com specifies it.

Addresses that are not public are refused, at submission and again at each delivery, and the connection goes to the
address that was checked: a host name that resolves differently by then cannot turn the server against its own network.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
import socket
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx

from semel.api.jobs.wire import job_object
from semel.errors import BadInputError, NotFoundError
from semel.log import get_log
from semel.repeating import Repeating
from semel.settings import Settings
from semel.tasks.jobs.store import JobStore
from semel.tasks.jobs.webhooks import Delivery, WebhookStore

log = get_log("webhooks")

_POLL_S = 0.5
_TIMEOUT_S = 15.0
"""The limit for a whole delivery, however slowly the receiver answers."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")  # RFC 8215: where it leads is up to the network
_AZURE_HOST = ipaddress.IPv4Address("168.63.129.16")  # Azure's own services for each of its machines
_IPV4_COMPATIBLE = ipaddress.IPv6Network("::/96")
_IPV4_TRANSLATED = ipaddress.IPv6Network("::ffff:0:0:0/96")
_CONNECT_S = 5.0
"""For each address of the receiver."""

_LOOKUP_S = 5.0
_LOOKUPS = ThreadPoolExecutor(4, thread_name_prefix="getaddrinfo")
"""Looks names up: `getaddrinfo` itself has no time-out, and a silent name server would hold a thread for minutes."""

_MAX_DELIVERIES = 4
"""Deliveries at the same time."""


def check_webhook(settings: Settings, url: str) -> None:
    """Check that this server can sign webhooks and that the URL is valid and public.

    Raises:
        BadInputError: it cannot, or the URL is not.
    """
    _secret(settings)
    _public_addresses(settings, _parsed(url))


def _secret(settings: Settings) -> bytes:
    text = settings.webhook_secret.get_secret_value()
    if not text:
        raise BadInputError("this server cannot send webhooks: SEMEL_WEBHOOK_SECRET is not set")
    try:
        secret = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        secret = b""
    if not 24 <= len(secret) <= 64:
        raise BadInputError("this server's SEMEL_WEBHOOK_SECRET must be 'whsec_' and 24 to 64 bytes in base64")
    return secret


def _parsed(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise BadInputError(f"webhook_url is not a URL: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
        raise BadInputError("webhook_url must be http:// or https:// with a host, and without a password")
    return parsed


def _public_addresses(settings: Settings, url: httpx.URL) -> list[str]:
    """The addresses of the URL's host. Raises BadInputError when it has none, or a private one."""
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        found = _LOOKUPS.submit(socket.getaddrinfo, url.host, port, type=socket.SOCK_STREAM).result(_LOOKUP_S)
    except TimeoutError:
        raise BadInputError(f"webhook_url: no name server answered for {url.host!r} within {_LOOKUP_S:g} s") from None
    except (OSError, UnicodeError) as error:
        raise BadInputError(f"webhook_url: the host {url.host!r} has no address: {error}") from None
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    for address in addresses:
        if not (settings.webhook_allow_private or is_public(ipaddress.ip_address(address))):
            raise BadInputError(
                f"webhook_url: {url.host!r} resolves to the private address {address}; "
                "to allow it, set SEMEL_WEBHOOK_ALLOW_PRIVATE=true on the server"
            )
    return list(dict.fromkeys(addresses))


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is public; an IPv6 address that embeds an IPv4 address is judged by the latter."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64 or address in _IPV4_COMPATIBLE:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        embedded = address.ipv4_mapped or address.sixtofour
        if embedded is not None:
            return is_public(embedded)
        if address.is_site_local or address in _IPV4_TRANSLATED or address in _LOCAL_NAT64:
            return False
    return address.is_global and not address.is_multicast and address != _AZURE_HOST


def signature(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of the header `webhook-signature`: version 1, HMAC-SHA-256 in base64."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


class WebhookSender:
    """One thread that looks for due deliveries, and a few threads that make them."""

    def __init__(self, settings: Settings, jobs: JobStore, webhooks: WebhookStore) -> None:
        self._settings = settings
        self._jobs = jobs
        self._webhooks = webhooks
        self._pool = ThreadPoolExecutor(_MAX_DELIVERIES, thread_name_prefix="webhook")
        self._under_way: set[Future[None]] = set()
        self._poll = Repeating("webhooks", self._once, every_s=_POLL_S)

    def start(self) -> None:
        """Start the threads."""
        self._poll.start()

    def stop(self) -> None:
        """Stop looking, and drop the deliveries that have not begun: they are due again in a minute."""
        self._poll.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _once(self) -> None:
        self._under_way = {future for future in self._under_way if not future.done()}
        if free := _MAX_DELIVERIES - len(self._under_way):
            due = self._webhooks.take_due(limit=free)
            self._under_way |= {self._pool.submit(self._deliver, delivery) for delivery in due}

    def _deliver(self, delivery: Delivery) -> None:
        """Attempt a delivery; after an unforeseen error, which is logged, it is due again in a minute."""
        try:
            self._attempt(delivery)
        except Exception:  # the edge of the pool's thread: a future's error would never be seen
            log.exception("webhook delivery failed unexpectedly", job=delivery.job_id)

    def _attempt(self, delivery: Delivery) -> None:
        store, bound = self._webhooks, log.bind(job=delivery.job_id)
        try:
            status = self._post(delivery)
        except NotFoundError:  # the job was deleted meanwhile
            return
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, BadInputError) as error:
            delay_s = store.failed(delivery, f"{type(error).__name__}: {error}")
            bound.warning("webhook failed", reason=str(error), again_in_s=delay_s)
            return
        if status is None:
            return
        if 200 <= status < 300:
            store.delivered(delivery)
            bound.info("webhook delivered")
        else:
            delay_s = store.failed(delivery, f"HTTP status {status}", for_good=status == 410)
            bound.warning("webhook refused", status=status, again_in_s=delay_s)

    def _post(self, delivery: Delivery) -> int | None:
        """Send the webhook; returns the HTTP status, or None when the job was retried meanwhile."""
        job = self._jobs.get(delivery.job_id)
        if not job.status.ended:
            return None
        settings, url = self._settings, _parsed(delivery.url)
        addresses = _public_addresses(settings, url)
        data: dict[str, Any] = job_object(job).model_dump(mode="json")
        ended_at = float(data[f"{job.status}_at"] or 0)
        event = {
            "type": f"job.{job.status}",
            "timestamp": datetime.fromtimestamp(ended_at, UTC).isoformat(),
            "data": data,
        }
        body = json.dumps(event).encode()
        message_id, timestamp = f"msg_{job.id}_{int(ended_at)}", int(time.time())
        headers = {
            "host": url.netloc.decode(),
            "content-type": "application/json",
            "user-agent": "semel",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(_secret(settings), message_id, timestamp, body),
        }
        return asyncio.run(_status_of(url, addresses, body, headers))


async def _status_of(url: httpx.URL, addresses: Sequence[str], body: bytes, headers: dict[str, str]) -> int:
    """The HTTP status of the answer, whose body is not read.

    Each call opens its own connection, because TLS must check the certificate for the host's name, not for the address.

    Args:
        addresses: of the host, which are tried in this order until one can be connected to.
    """
    unreachable: httpx.HTTPError | None = None
    async with (
        asyncio.timeout(_TIMEOUT_S),
        httpx.AsyncClient(
            timeout=httpx.Timeout(_TIMEOUT_S, connect=_CONNECT_S), follow_redirects=False, trust_env=False
        ) as http,
    ):
        for address in addresses:
            options: dict[str, Any] = {"content": body, "headers": headers, "extensions": {"sni_hostname": url.host}}
            try:
                async with http.stream("POST", url.copy_with(host=address), **options) as answer:
                    return answer.status_code
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                unreachable = error
    raise unreachable or httpx.ConnectError("the host has no address")
