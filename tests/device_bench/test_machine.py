import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_bench import cores, machine

KEYS = {"name", "soc", "cores", "isa", "memory_mb", "os", "governor", "temperature_c"}
KEYS |= {"throttled", "core_types"}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def test_this_machine_has_the_keys_and_is_json() -> None:
    got = machine.describe()
    assert set(got) == KEYS
    assert got["cores"] >= 1
    assert got["name"]
    json.dumps(got, allow_nan=False)


def test_a_board(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
            "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp\n\nHardware\t: BCM2835\n",
            "proc/meminfo": "MemTotal:        8255984 kB\n",
            "sys/fs/cgroup/memory.max": f"{512 << 20}\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
            "sys/class/thermal/thermal_zone0/type": "pmic\n",
            "sys/class/thermal/thermal_zone0/temp": "60000\n",
            "sys/class/thermal/thermal_zone1/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone1/temp": "51550\n",
            "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
        },
    )
    got = machine.describe(root)
    assert got["name"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert got["soc"] == "BCM2835"
    assert got["isa"] == ["neon", "fp16", "dotprod"]
    assert got["memory_mb"] == 512
    assert got["governor"] == "ondemand"
    assert got["temperature_c"] == pytest.approx(51.5, abs=0.1)
    assert got["os"].startswith("Debian GNU/Linux 12 (bookworm), ")


def test_what_is_unknown_is_null(tmp_path: Path) -> None:
    got = machine.describe(tmp_path)
    assert set(got) == KEYS
    assert got["soc"] is got["throttled"] is got["core_types"] is None
    assert got["isa"] is got["memory_mb"] is got["governor"] is got["temperature_c"] is None


def test_unlimited_and_broken_files_are_passed_over(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {"sys/fs/cgroup/memory.max": "max\n", "sys/class/thermal/thermal_zone0/temp": "n/a\n"},
    )
    assert machine.describe(root)["memory_mb"] is None
    assert machine.temperature_c(root) is None


@pytest.mark.parametrize(
    ("told", "file"),
    [
        ("4:memory:/app/x\n1:cpu,cpuacct:/\n", "memory/app/x/memory.limit_in_bytes"),
        ("0::/user.slice/y.scope\n", "user.slice/y.scope/memory.max"),
    ],
)
def test_the_cap_of_the_own_control_group_counts(tmp_path: Path, told: str, file: str) -> None:
    root = write(tmp_path, {"proc/meminfo": "MemTotal: 8255984 kB\n", "proc/self/cgroup": told})
    assert machine.describe(root)["memory_mb"] == 8062
    write(tmp_path, {f"sys/fs/cgroup/{file}": f"{256 << 20}\n"})
    assert machine.describe(root)["memory_mb"] == 256


def test_emulation_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QEMU_CPU", raising=False)
    root = write(tmp_path, {"proc/cpuinfo": "vendor_id\t: GenuineIntel\nflags\t: avx2\n"})
    assert machine.emulated(root, "aarch64")
    assert not machine.emulated(root, "x86_64")
    monkeypatch.setenv("QEMU_CPU", "cortex-a72")
    assert machine.emulated(tmp_path / "none", "aarch64")


def test_an_emulator_that_hides_is_told_by_who_starts_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("QEMU_CPU", raising=False)
    assert not machine.emulated(tmp_path, "aarch64")
    monkeypatch.setenv("EDGEWISE_EMULATED", "1")
    assert machine.emulated(tmp_path, "aarch64")


def core(number: int, part: str, maker: str = "0x41") -> str:
    features = "Features\t: fp asimd evtstrm aes crc32"
    return f"processor\t: {number}\n{features}\nCPU implementer\t: {maker}\nCPU part\t: {part}\n\n"


def board(root: Path, model: str, chip: str, part: str, mhz: int) -> Path:
    """What a Raspberry Pi with the 64-bit system shows; on a Pi 5 the firmware lies at another place."""
    place = "soc@107c000000/soc@107c000000:firmware" if chip == "bcm2712" else "soc/soc:firmware"
    cpu = "sys/devices/system/cpu/cpu{}/cpufreq/{}"
    files = {cpu.format(number, "scaling_max_freq"): f"{mhz}000\n" for number in range(4)}
    files |= {cpu.format(number, "scaling_cur_freq"): f"{mhz // 2}000\n" for number in range(4)}
    files |= {
        "proc/device-tree/model": f"{model}\0",
        "proc/device-tree/compatible": f"raspberrypi,{model[-5:]}\0brcm,{chip}\0",
        "proc/cpuinfo": "".join(core(number, part) for number in range(4))
        + f"Hardware\t: BCM2835\nModel\t: {model}\n",
        "proc/meminfo": "MemTotal:        3884360 kB\n",
        cpu.format(0, "scaling_governor"): "ondemand\n",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "48686\n",
        f"sys/devices/platform/{place}/get_throttled": "50005\n",
    }  # fmt: skip
    return write(root, files)


@pytest.mark.parametrize(
    ("model", "chip", "part", "name", "mhz"),
    [
        ("Raspberry Pi 4 Model B Rev 1.5", "bcm2711", "0xd08", "Cortex-A72", 1800),
        ("Raspberry Pi 5 Model B Rev 1.0", "bcm2712", "0xd0b", "Cortex-A76", 2400),
    ],
)
def test_a_raspberry_pi(tmp_path: Path, model: str, chip: str, part: str, name: str, mhz: int) -> None:
    got = machine.describe(board(tmp_path, model, chip, part, mhz))
    assert (got["name"], got["soc"], got["governor"]) == (model, chip.upper(), "ondemand")
    assert got["core_types"] == [{"part": name, "cores": 4, "max_mhz": mhz}]
    assert got["temperature_c"] == 48.7
    assert got["throttled"] == "under-voltage, throttled now; under-voltage, throttled since boot (0x50005)"
    assert cores.mhz(tmp_path) == mhz / 2


GETPROP = """#!/bin/sh
cat <<'END'
[ro.build.version.release]: [14]
[ro.product.manufacturer]: [Google]
[ro.product.model]: [Pixel 6]
[ro.soc.manufacturer]: [Google]
[ro.soc.model]: [Tensor]
END
"""


def test_a_phone_with_three_kinds_of_cores(tmp_path: Path) -> None:
    parts = ["0xd05"] * 4 + ["0xd0b"] * 2 + ["0xd44"] * 2
    khz = [1_803_000] * 4 + [2_253_000] * 2 + [2_802_000] * 2
    place = "sys/devices/system/cpu/cpu{}/cpufreq/scaling_max_freq"
    files = {place.format(number): f"{speed}\n" for number, speed in enumerate(khz)}
    files |= {
        "proc/cpuinfo": "".join(core(number, part) for number, part in enumerate(parts)),
        "system/bin/getprop": GETPROP,
        "sys/class/thermal/thermal_zone0/type": "BIG\n",
        "sys/class/thermal/thermal_zone0/temp": "41000\n",
    }
    root = write(tmp_path, files)
    (root / "system/bin/getprop").chmod(0o755)
    got = machine.describe(root)
    assert (got["name"], got["soc"], got["temperature_c"]) == ("Google Pixel 6", "Google Tensor", 41.0)
    assert got["os"].startswith("Android 14, ")
    assert got["core_types"] == [
        {"part": "Cortex-A55", "cores": 4, "max_mhz": 1803},
        {"part": "Cortex-A76", "cores": 2, "max_mhz": 2253},
        {"part": "Cortex-X1", "cores": 2, "max_mhz": 2802},
    ]
    assert got["throttled"] is None


def test_cores_without_a_known_name_or_clock(tmp_path: Path) -> None:
    write(tmp_path, {"proc/cpuinfo": core(0, "0x001", "0x51") + core(1, "?", "0x41")})
    assert cores.types(tmp_path) == [
        {"part": None, "cores": 1, "max_mhz": None},
        {"part": "ARM part 0x1 of maker 0x51", "cores": 1, "max_mhz": None},
    ]
    assert cores.mhz(tmp_path) is None
    write(tmp_path, {"proc/cpuinfo": "processor : 0\ncpu MHz : 2596.118\nmodel name : Some CPU\n"})
    assert cores.types(tmp_path) == [{"part": "Some CPU", "cores": 1, "max_mhz": None}]
    assert cores.mhz(tmp_path) == 2596.1


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("0", "none"),
        ("throttled=0x0", "none"),
        ("0x2", "frequency capped now (0x2)"),
        ("80008", "soft temperature limit now; soft temperature limit since boot (0x80008)"),
        ("0x10", "unknown bits (0x10)"),
        ("n/a", None),
        ("", None),
    ],
)
def test_throttling_in_words(tmp_path: Path, told: str, words: str | None) -> None:
    root = write(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": f"{told}\n"})
    assert machine.throttled(root) == words


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=200))
def test_any_cpuinfo_is_read_without_an_error(text: str) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        write(root, {"sys/devices/platform/soc/soc:firmware/get_throttled": text})
        (root / "proc").mkdir()
        (root / "proc/cpuinfo").write_text(f"processor : 0\ncpu MHz : {text}\nCPU part : {text}\n\n{text}")
        json.dumps(machine.describe(root), allow_nan=False)
        cores.mhz(root)
