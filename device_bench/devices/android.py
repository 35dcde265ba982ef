"""What a phone says of itself: the answers of getprop and dumpsys → what the device block of a row lacks.

The runner there is a Linux Python, which sees the kernel; what only Android's own tools tell is asked through
adb and put beside it here.
"""

import re
from typing import Any

# Android's own words for the status of its thermal service, by number.
THROTTLING = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
CPU, SKIN = 0, 3  # types of its temperatures

_PROP = re.compile(r"^\[([^\]]+)\]: \[(.*)\]$", re.MULTILINE)
_STATUS = re.compile(r"^\s*Thermal Status:\s*(\d)", re.MULTILINE)
_TEMPERATURE = re.compile(r"Temperature\{mValue=(-?[\d.]+), mType=(-?\d+), mName=([^,}]*)")
_BATTERY = re.compile(r"^\s*(\w+ powered|level|temperature):\s*(\S+)", re.MULTILINE)


def props(text: str) -> dict[str, str]:
    """`getprop` → property → value."""
    return {key: value.strip() for key, value in _PROP.findall(text.replace("\r", ""))}


def thermal(text: str) -> dict[str, Any]:
    """`dumpsys thermalservice` → {"throttled": a word of THROTTLING, "temperature_c"}; None: not told.

    The temperature is the hottest core's, else the skin's. It prints two lists: what its cache holds, and
    what the hardware says now. The second is taken where there is one.
    """
    status = _STATUS.search(text)
    level = int(status.group(1)) if status else -1
    now = text.partition("Current temperatures from HAL:")[2].partition("Current cooling devices")[0]
    read = [(int(kind), float(value)) for value, kind, _ in _TEMPERATURE.findall(now or text)]
    sane = {kind: [value for of, value in read if of == kind and 0 < value < 150] for kind in (CPU, SKIN)}
    hottest = max(sane[CPU] or sane[SKIN], default=None)
    word = THROTTLING[level] if 0 <= level < len(THROTTLING) else None
    return {"throttled": word, "temperature_c": None if hottest is None else round(hottest, 1)}


def battery(text: str) -> dict[str, Any]:
    """`dumpsys battery` → {"level_percent", "temperature_c", "plugged"}; None: not told."""
    found = dict(_BATTERY.findall(text))
    powered = [value == "true" for key, value in found.items() if key.endswith("powered")]
    tenths = found.get("temperature", "")
    return {
        "level_percent": int(found["level"]) if found.get("level", "").isdigit() else None,
        "temperature_c": int(tenths) / 10 if tenths.lstrip("-").isdigit() else None,
        "plugged": any(powered) if powered else None,
    }


def abi(known: dict[str, str]) -> str:
    """The processor's main ABI, as Android names it ("arm64-v8a"); "" where it is not told."""
    return known.get("ro.product.cpu.abi") or known.get("ro.product.cpu.abilist", "").partition(",")[0]


def emulator(known: dict[str, str]) -> bool:
    """Whether this is Android's own emulator: its times are those of the machine that it runs on."""
    return "1" in (known.get("ro.kernel.qemu"), known.get("ro.boot.qemu"))


def block(
    seen: dict[str, Any], known: dict[str, str], heat: dict[str, Any], charge: dict[str, Any]
) -> dict[str, Any]:
    """The device block that the runner saw, with what Android says put in. The rest stays."""
    maker, model = (known.get(f"ro.product.{key}", "") for key in ("manufacturer", "model"))
    name = model if model.lower().startswith(maker.lower()) else f"{maker} {model}"
    chip = [known.get(f"ro.soc.{key}", "") for key in ("manufacturer", "model")]
    soc = " ".join(part for part in chip if part and part != "unknown") or known.get("ro.board.platform")
    release, level = (known.get(f"ro.build.version.{key}") for key in ("release", "sdk"))
    kernel = str(seen.get("os")).removeprefix(f"Android {release}, ")  # the runner there may know it already
    told = {
        "name": name.strip(),
        "soc": soc or known.get("ro.hardware"),
        "os": f"Android {release} (API {level}), {kernel}" if release else None,
        "temperature_c": heat["temperature_c"],
        "throttled": heat["throttled"],
        "battery": charge if charge["level_percent"] is not None else None,
    }
    return {**seen, **{key: value for key, value in told.items() if value is not None and value != ""}}
