"""Where this machine lets its energy be read: a Pi 5's power chip, INA219, phone rails, RAPL, a battery.

Every source is read, none is reckoned: where nothing can be read, `find` says why.
"""

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

INA = ("ina219", "ina220", "ina226", "ina230", "ina231", "ina260")
RAILS_SERVICE = "android.hardware.power.stats.IPowerStats/default"
LEAST_MICROAMPS = 10_000  # a running phone draws more: what says less does not count in microamperes

Ask = Callable[[Sequence[str]], str]


@dataclass(frozen=True)
class Meter:
    """Something that tells energy. `read()` gives joules since some start if `counts`, else watts now.

    `read` raises OSError where it stops being readable. `seconds`: the shortest block that it resolves.
    """

    source: str
    read: Callable[[], float]
    counts: bool
    seconds: float = 5.0


def ask(command: Sequence[str]) -> str:
    """What a command prints. Raises FileNotFoundError where it is missing, OSError where it fails."""
    try:
        done = subprocess.run(list(command), capture_output=True, text=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        raise OSError(f"{command[0]} does not answer") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise OSError(f"{command[0]}: {said[0][:200]}")
    return done.stdout


def find(root: Path = Path("/"), ask: Ask = ask) -> tuple[Meter | None, str]:
    """The best meter there is and "", or None and the reason. `root` stands for `/`, `ask` for commands."""
    reasons = []
    for look in (_pmic, _ina, _rails, _rapl, _battery):
        found = look(root, ask)
        if isinstance(found, Meter):
            return found, ""
        if found:
            reasons.append(found)
    nothing = (
        "no meter on this machine: no vcgencmd (Pi 5), no INA219 in hwmon or iio, no Android power rails, "
        "no RAPL in /sys/class/powercap, no battery"
    )
    return None, "; ".join(reasons) or nothing


def pmic_watts(text: str) -> float:
    """The sum of volts times amperes over the rails of `vcgencmd pmic_read_adc`.

    Lines are `NAME_A current(0)=0.07A` and `NAME_V volt(8)=3.69V`; a rail counts when it has both. What does
    not pass the chip (USB ports, its own losses) is not in it. Raises ValueError where no rail is told.
    """
    found = re.findall(r"^\s*(\S+)_([AV])\s+(?:current|volt)\(\d+\)=(-?\d+(?:\.\d+)?)[AV]\s*$", text, re.M)
    amperes = {name: float(value) for name, kind, value in found if kind == "A"}
    volts = {name: float(value) for name, kind, value in found if kind == "V"}
    rails = amperes.keys() & volts.keys()
    if not rails:
        raise ValueError("no rail with volts and amperes")
    return sum(volts[name] * amperes[name] for name in sorted(rails))


def odpm_joules(text: str) -> float:
    """The sum over the rails of an `energy_value` file: `CH0(T=ms)[RAIL], microwatt-seconds`."""
    found = re.findall(r"^CH\d+(?:\(T=\d+\))?\[[^\]\n]*\], (\d+)\s*$", text, re.M)
    if not found:
        raise ValueError("no channel")
    return sum(map(int, found)) / 1e6


def powerstats_joules(text: str) -> float:
    """The sum over the rails that Android's power-stats service prints: `[RAIL]:Part   123.45 mWs`."""
    part = text.partition("energy meter =")[2].partition("End of PowerStats")[0]
    found = re.findall(r"^\s*\[[^\]\n]*\]\S*\s+(\d+(?:\.\d+)?) mWs", part, re.M)
    if not found:
        raise ValueError("no rail")
    return sum(map(float, found)) / 1e3


def battery_joules(text: str) -> float:
    """Charge times voltage by `dumpsys battery`, in joules. Raises ValueError while it is plugged in.

    The charge counter is in microampere-hours, the voltage in millivolts.
    """
    if re.search(r"^\s*\w+ powered: true", text, re.M):
        raise ValueError(
            "plugged in, so the battery says nothing of what is drawn; unplug it (adb over Wi-Fi)"
        )
    charge = re.search(r"^\s*Charge counter: (\d+)", text, re.M)
    volts = re.search(r"^\s*voltage: (\d+)", text, re.M)
    if not charge or not volts or not int(charge[1]) or not int(volts[1]):
        raise ValueError("this battery tells no charge counter")
    return int(charge[1]) * 1e-6 * 3600 * int(volts[1]) * 1e-3


def _pmic(root: Path, ask: Ask) -> Meter | str | None:
    command = ["vcgencmd", "pmic_read_adc"]
    try:
        pmic_watts(ask(command))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return "this Raspberry Pi tells no power (a Pi 5 does): wire an INA219 into its supply"
    return Meter("Raspberry Pi PMIC", lambda: _value(pmic_watts, ask(command)), counts=False)


def _ina(root: Path, ask: Ask) -> Meter | str | None:
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        power = folder / "power1_input"  # microwatts
        if _text(folder / "name") in INA and (number := _number(power)) is not None and number >= 0:
            return Meter(f"{_text(folder / 'name')} (hwmon)", partial(_scaled, power, 1e-6), counts=False)
    for folder in sorted((root / "sys/bus/iio/devices").glob("iio:device*")):
        if _text(folder / "name") not in INA:
            continue
        for raw in sorted(folder.glob("in_power*_raw")):
            scale = _number(raw.with_name(raw.name.replace("_raw", "_scale")))
            if scale and _number(raw) is not None:  # raw times scale is milliwatts
                return Meter(
                    f"{_text(folder / 'name')} (iio)", partial(_scaled, raw, scale / 1e3), counts=False
                )
    return None


def _rails(root: Path, ask: Ask) -> Meter | str | None:
    files = sorted((root / "sys/bus/iio/devices").glob("iio:device*/energy_value"))
    try:
        if files and all(odpm_joules(_read(file)) >= 0 for file in files):
            source = f"power rails ({', '.join(_text(file.with_name('name')) or 'iio' for file in files)})"
            return Meter(source, lambda: sum(_value(odpm_joules, _read(file)) for file in files), counts=True)
    except (OSError, ValueError):
        pass  # the shell may not read them; the service tells the same
    command = ["dumpsys", RAILS_SERVICE]
    try:
        powerstats_joules(ask(command))
    except FileNotFoundError:
        return "power rails are there, but this user may not read them" if files else None
    except (OSError, ValueError):
        return "this phone tells no power rails (a Pixel 6 or later does)"
    return Meter("power rails (power-stats)", lambda: _value(powerstats_joules, ask(command)), counts=True)


class _Counter:
    """The sum of counters that start again at their range. Read it more often than they wrap around."""

    def __init__(self, ranges: dict[Path, int]) -> None:
        self._ranges = ranges
        self._last = {path: _int(path) for path in ranges}
        self._total = 0

    def read(self) -> int:
        for path, size in self._ranges.items():
            now = _int(path)
            self._total += (now - self._last[path]) % size if size else max(now - self._last[path], 0)
            self._last[path] = now
        return self._total


def _rapl(root: Path, ask: Ask) -> Meter | str | None:
    """Packages and their memory; the parts of a package and the whole platform would count twice."""
    zones = sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
    names = {zone: _text(zone / "name") or "" for zone in zones}
    chosen = [zone for zone, name in names.items() if name.startswith("package") or name == "dram"]
    if not chosen:
        return None
    try:
        counter = _Counter({zone / "energy_uj": _int(zone / "max_energy_range_uj") for zone in chosen})
    except PermissionError:
        return "RAPL is there, but only root may read energy_uj under /sys/class/powercap: run as root"
    except OSError as error:
        return f"RAPL is there, but does not read: {error.strerror or error}"
    source = f"RAPL ({', '.join(names[zone] for zone in chosen)})"
    return Meter(source, lambda: counter.read() / 1e6, counts=True)


def _battery(root: Path, ask: Ask) -> Meter | str | None:
    supplies = sorted((root / "sys/class/power_supply").glob("*"))
    for folder in supplies:
        if _text(folder / "type") == "Battery" and _text(folder / "scope") != "Device":
            return _discharging(folder)
    command = ["dumpsys", "battery"]
    try:
        battery_joules(ask(command))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return f"battery: {error}"
    return Meter("battery counter", lambda: _value(battery_joules, ask(command)), counts=True, seconds=60.0)


def _discharging(folder: Path) -> Meter | str:
    def watts() -> float:
        if _text(folder / "status") != "Discharging":
            raise OSError("it is plugged in, so it says nothing of what is drawn; unplug it")
        if (power := _number(folder / "power_now")) is not None:
            return abs(power) / 1e6
        microamps = abs(_int(folder / "current_now"))  # the sign of a drain differs from driver to driver
        if microamps < LEAST_MICROAMPS:
            raise OSError(f"current_now tells {microamps}, which are no microamperes of a running machine")
        return microamps * _int(folder / "voltage_now") / 1e12

    try:
        watts()
    except OSError as error:
        return f"battery {folder.name}: {error.strerror or error}"
    return Meter(f"battery {folder.name}", watts, counts=False, seconds=30.0)


def _value(parse: Callable[[str], float], text: str) -> float:
    try:
        return parse(text)
    except ValueError as error:
        raise OSError(f"it told {error} this time") from None


def _read(path: Path) -> str:
    return path.read_text(errors="replace")


def _text(path: Path) -> str | None:
    try:
        return _read(path).strip("\0\n ") or None
    except OSError:
        return None


def _int(path: Path) -> int:
    text = _read(path).strip()
    try:
        return int(text)
    except ValueError:
        raise OSError(f"{path.name} tells {text[:20]!r}, which is no number") from None


def _scaled(path: Path, scale: float) -> float:
    return _int(path) * scale


def _number(path: Path) -> float | None:
    try:
        return float(_read(path))
    except (OSError, ValueError):
        return None
