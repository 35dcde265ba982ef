"""This machine as a series: processor, memory, disk and network, once in a while."""

import math
import time
from collections.abc import Callable, Iterator

import numpy as np

from apps.monitor.lines import Batch
from runtimes.errors import InputError

NAMES = ("cpu_percent", "memory_percent", "disk_read_mb_s", "disk_write_mb_s", "net_in_mb_s", "net_out_mb_s")


def machine_batches(
    step: float = 1.0,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    passed: Callable[[], float] = time.monotonic,
) -> Iterator[Batch]:
    """One point every `step` seconds, for ever: shares in percent, traffic in MB (10^6 bytes) a second.

    After a stall one point comes, of all that went by; then the next after `step` again. A `clock` that is
    set only changes the points' times: the pace and the rates go by the time that `passed`.
    NaN for what the system does not tell. Raises InputError where psutil is missing.
    """
    try:
        import psutil
    except ImportError:
        raise InputError("--machine needs psutil; pip install 'edgewise[bench]'") from None
    psutil.cpu_percent()
    before, at = _counters(psutil), passed()
    due = at
    while True:
        due = max(due + step, passed())
        sleep(max(0.0, due - passed()))
        now, then = _counters(psutil), passed()
        seconds = max(then - at, 1e-3)
        rates = [(new - old) / seconds / 1e6 for new, old in zip(now, before, strict=True)]
        before, at = now, then
        values = [psutil.cpu_percent(), psutil.virtual_memory().percent, *(max(rate, 0.0) for rate in rates)]
        yield Batch(NAMES, np.array([clock()]), np.array([values], float))


def _counters(psutil: object) -> list[float]:
    """Bytes since the start of the machine: disk read and written, network in and out."""
    disk = psutil.disk_io_counters()  # type: ignore[attr-defined]
    net = psutil.net_io_counters()  # type: ignore[attr-defined]
    told = [(disk, "read_bytes"), (disk, "write_bytes"), (net, "bytes_recv"), (net, "bytes_sent")]
    return [float(getattr(source, key)) if source else math.nan for source, key in told]
