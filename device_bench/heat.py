"""What changes while a bench runs: temperature, clock and throttling; and waiting for it to cool down."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from device_bench import cores, machine

WITHIN_C = 3.0
LIMIT_S = 60.0
STEP_S = 1.0


class Watch:
    """Looks at temperature, clock and throttling. Counters are compared with the look before."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._events = _events(root)

    def look(self) -> dict[str, Any]:
        """{temperature_c, mhz, throttled}: now, and whether it was slowed down now or since the last look."""
        before, self._events = self._events, _events(self._root)
        return {
            "temperature_c": machine.temperature_c(self._root),
            "mhz": cores.mhz(self._root),
            "throttled": self._throttled(before),
        }

    def _throttled(self, before: int | None) -> bool | None:
        told = []
        bits = machine.throttled_bits(self._root)
        if bits is not None:
            told.append(bool(bits & 0b1110))  # under-voltage alone slows nothing down
        if before is not None and self._events is not None:
            told.append(self._events > before)
        held = _held_back(self._root)
        if held is not None:
            told.append(held)
        return any(told) if told else None


def _events(root: Path) -> int | None:
    """How often an x86 processor has throttled itself since boot, all cores together."""
    files = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/core_throttle_count")
    counts = [int(text) for file in files if (text := _text(file)).isdigit()]
    return sum(counts) if counts else None


def _held_back(root: Path) -> bool | None:
    """Whether the kernel's cooling holds a processor's clock down (phones and boards)."""
    states = []
    for device in (root / "sys/class/thermal").glob("cooling_device*"):
        kind, state = _text(device / "type").lower(), _text(device / "cur_state")
        if state.isdigit() and ("cpufreq" in kind or kind.startswith("processor")):
            states.append(int(state) > 0)
    return any(states) if states else None


def cool_down(
    start_c: float | None,
    *,
    read: Callable[[], float | None] = machine.temperature_c,
    within_c: float = WITHIN_C,
    limit_s: float = LIMIT_S,
    sleep: Callable[[float], object] = time.sleep,
) -> float:
    """Waits until the temperature is within some degrees of `start_c`; the seconds waited.

    At most `limit_s`, and not at all where no temperature is told.
    """
    waited = 0.0
    while waited < limit_s:
        now = read()
        if start_c is None or now is None or now <= start_c + within_c:
            break
        sleep(STEP_S)
        waited += STEP_S
    return waited


class Cooling:
    """Waits between the phases of a bench until the machine is near its temperature at the start."""

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self._start_c = machine.temperature_c()
        self._limit_s = limit_s
        self._waited: dict[str, float] = {}

    def before(self, phase: str) -> None:
        self._waited[phase] = cool_down(self._start_c, limit_s=self._limit_s)

    def told(self) -> str:
        """What was done, in words."""
        if self._start_c is None:
            return "cool-down: none, as no temperature is told here"
        waits = [
            f"{seconds:.0f} s before {phase}{' (the limit)' if seconds >= self._limit_s else ''}"
            for phase, seconds in self._waited.items()
            if seconds
        ]
        done = ", ".join(waits) or "not needed"
        return f"cool-down: {done}, to be within {WITHIN_C:g} °C of {self._start_c} °C"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
