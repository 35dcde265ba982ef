"""The rate limit: one token bucket per client, in bounded memory."""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

MAX_CLIENTS = 4096


class RateLimit:
    """Token buckets that hold `per_minute` requests and refill evenly over a minute.

    At most `max_clients` buckets are kept; the one that was idle longest is dropped first, which is the
    one that has refilled most. Not for use from several threads: it lives on the event loop.
    """

    def __init__(
        self,
        per_minute: int,
        clock: Callable[[], float] = time.monotonic,
        max_clients: int = MAX_CLIENTS,
    ) -> None:
        self.per_minute = per_minute
        self.clock = clock
        self.max_clients = max_clients
        self.buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client: (tokens, at)

    def take(self, client: str, per_minute: int | None = None) -> float:
        """Takes one request from the client's bucket: 0.0, or the seconds until there is one again.

        `per_minute` is this client's own rate, where it has one.
        """
        now = self.clock()
        most = float(per_minute or self.per_minute)
        per_second = most / 60
        tokens, at = self.buckets.pop(client, (most, now))
        tokens = min(most, tokens + (now - at) * per_second)
        granted = tokens >= 1
        self.buckets[client] = (tokens - 1 if granted else tokens, now)
        if len(self.buckets) > self.max_clients:
            self.buckets.popitem(last=False)
        return 0.0 if granted else (1 - tokens) / per_second


def client_name(address: str | None) -> str:
    """The bucket of an address. An IPv6 client owns a whole /64, so that is what is counted."""
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return address or "unknown"
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, 64), strict=False))
