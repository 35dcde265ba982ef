"""What the monitor's service can be told: the address and every limit."""

from dataclasses import dataclass

from runtimes.errors import InputError

AHEAD_S = 300.0  # a clock may go that much before ours; a point further ahead would make all after it late


@dataclass(frozen=True)
class MonitorConfig:
    """Address and limits.

    `waiting_points` may wait to be stored; `batch_points` are stored and scored in one transaction.
    `warm_up` points of a series are learned from before it is scored; None: what the model's window asks
    for. Points are kept for `keep_days` (counted from the series' newest one) and `keep_points` a series,
    alarms and the log for `keep_alarm_days`. `private_webhooks` lets alerts go to loopback and private
    addresses. Raises InputError for a value that cannot work.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    per_minute: int = 6_000
    waiting_points: int = 50_000
    batch_points: int = 2_000
    request_points: int = 5_000
    max_body_bytes: int = 2 << 20
    max_series: int = 5_000
    max_webhooks: int = 20
    warm_up: int | None = None
    keep_points: int = 50_000
    keep_days: float = 30.0
    keep_alarm_days: float = 400.0
    private_webhooks: bool = False
    open_without_key: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InputError(f"port {self.port} is outside 0 to 65535; choose one such as 8080")
        for name in ("per_minute", "waiting_points", "batch_points", "request_points", "max_body_bytes"):
            self._at_least(name, 1)
        for name in ("max_series", "keep_days", "keep_alarm_days"):
            self._at_least(name, 1)
        self._at_least("max_webhooks", 0)
        self._at_least("keep_points", 1_000)
        if self.warm_up is not None:
            self._at_least("warm_up", 16)
        if self.warm_up is not None and self.warm_up > self.keep_points:
            raise InputError(f"warm_up is {self.warm_up}, over keep_points {self.keep_points}; lower it")

    def _at_least(self, name: str, least: float) -> None:
        if not getattr(self, name) >= least:
            raise InputError(f"{name} is {getattr(self, name)}, and must be at least {least:g}")
