import json
from pathlib import Path

import pytest

from device_bench import machine

KEYS = {"name", "soc", "cores", "isa", "memory_mb", "os", "governor", "temperature_c"}


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
    assert got["isa"] is got["memory_mb"] is got["governor"] is got["temperature_c"] is None


def test_unlimited_and_broken_files_are_passed_over(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {"sys/fs/cgroup/memory.max": "max\n", "sys/class/thermal/thermal_zone0/temp": "n/a\n"},
    )
    assert machine.describe(root)["memory_mb"] is None
    assert machine.temperature_c(root) is None


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
