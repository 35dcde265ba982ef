"""One alert over HTTP: to an address that was looked at first, signed, without following anywhere else.

The name is resolved once, every address that it has is judged, and the connection goes to a judged address:
a name that changes its mind between (DNS rebinding) gains nothing.
"""

import contextlib
import hashlib
import hmac
import http.client
import ipaddress
import socket
import ssl
import threading
from urllib.parse import urlsplit

from runtimes.errors import InputError

SECONDS = 10.0  # to connect, and for each piece of the answer
WHOLE_SECONDS = 20.0  # an answer that drips in holds a thread no longer
MAX_URL = 2_000
AGENT = "edgewise-monitor/1"
OPEN_V6 = ipaddress.ip_network("2000::/3")  # what was ever given out
NAT64 = ipaddress.ip_network("64:ff9b::/96")
CLOSED = (  # that Python 3.11 takes for global: 6to4 relays (RFC 7526), documentation (RFC 9637)
    ipaddress.ip_network("192.88.99.0/24"),
    ipaddress.ip_network("3fff::/20"),
)


class BadTarget(InputError):
    """An address to which no alert may go."""


def check_url(url: str) -> str:
    """The URL, where its form is one for a webhook. Raises InputError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    fine = parts.scheme in ("http", "https") and parts.hostname and port != 0
    plain = len(url) <= MAX_URL and all("!" <= character <= "~" for character in url)
    if not fine or not plain:
        raise InputError("the URL must be http:// or https:// with a host, in plain ASCII; check it")
    if parts.username is not None or parts.password is not None:
        raise InputError("the URL holds a user or password; leave them out, alerts are signed")
    if parts.fragment:
        raise InputError("the URL holds a #fragment, which is never sent; leave it out")
    return url


def addresses(host: str, port: int, private: bool) -> list[str]:
    """Where the host is. Raises BadTarget where any of it is no public address, unless `private`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise BadTarget(f"{host[:80]}: no such host; check the URL") from None
    places = list(dict.fromkeys(str(one[4][0]) for one in found))
    for place in places:
        if not private and not is_public(place):
            raise BadTarget(
                f"{host[:80]} is at {place}, which is no public address; "
                "start the service with --private-webhooks to allow it"
            )
    return places


def is_public(address: str) -> bool:
    """Whether an address is of the open internet; IPv4 inside IPv6 is judged as what it is."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if inner is None and ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner:
            return is_public(str(inner))
        if ip not in OPEN_V6:
            return False
    return ip.is_global and not ip.is_multicast and not any(ip in net for net in CLOSED)


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """`sha256=` and HMAC-SHA256 of `timestamp.body`, in hexadecimal."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def send(
    url: str, secret: str, body: bytes, delivery: str, timestamp: str, private: bool
) -> tuple[bool, str]:
    """Whether a 2xx came back, and what to write of it. Never raises for what the other side does."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    headers = {
        "Content-Type": "application/json", "User-Agent": AGENT, "Edgewise-Delivery": delivery,
        "Edgewise-Timestamp": timestamp, "Edgewise-Signature": signature(secret, timestamp, body),
    }  # fmt: skip
    try:
        place = addresses(host, port, private)[0]
        made: list[socket.socket] = []
        connection = _connection(parts.scheme, host, port, place, made)
        over = threading.Event()
        cut = threading.Timer(WHOLE_SECONDS, _cut, [made, over])
        cut.start()
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("POST", path, body, headers)
            status = connection.getresponse().status
            if over.is_set():  # half of a head passes for a whole one
                raise TimeoutError(f"no whole answer within {WHOLE_SECONDS:g} s")
        finally:
            cut.cancel()
            connection.close()
            for one in made:
                one.close()
    except BadTarget as error:
        return False, str(error)
    except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
        return False, f"{type(error).__name__}: {str(error)[:120]}"
    return 200 <= status < 300, f"status {status}"


def _cut(made: list[socket.socket], over: threading.Event) -> None:
    """Ends a connection that takes too long: to close it would leave it open for who reads from it."""
    over.set()
    for one in made:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def _connection(
    scheme: str, host: str, port: int, place: str, sockets: list[socket.socket]
) -> http.client.HTTPConnection:
    """A connection to that place, which for all else is the host: Host header, certificate.

    A duplicate of its socket comes into `sockets`: TLS takes the first one away.
    """

    def connect(_: object, *rest: object, **how: object) -> socket.socket:
        opened = socket.create_connection((place, port), *rest, **how)  # type: ignore[arg-type]
        sockets.append(opened.dup())
        return opened

    if scheme == "https":
        made: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=SECONDS, context=ssl.create_default_context()
        )
    else:
        made = http.client.HTTPConnection(host, port, timeout=SECONDS)
    made._create_connection = connect  # type: ignore[attr-defined]
    return made
