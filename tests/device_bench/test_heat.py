from pathlib import Path

import pytest

from device_bench import heat

FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"


def write(root: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")
    return root


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    assert heat.Watch(tmp_path).look() == {"temperature_c": None, "mhz": None, "throttled": None}


@pytest.mark.parametrize(
    ("bits", "slowed"), [("0", False), ("50001", False), ("4", True), ("2", True), ("8", True)]
)
def test_a_pi_is_throttled_now_or_not(tmp_path: Path, bits: str, slowed: bool) -> None:
    assert heat.Watch(write(tmp_path, {FIRMWARE: bits})).look()["throttled"] is slowed


def test_a_pc_counts_its_throttling(tmp_path: Path) -> None:
    file = "sys/devices/system/cpu/cpu{}/thermal_throttle/core_throttle_count"
    watch = heat.Watch(write(tmp_path, {file.format(0): 3, file.format(1): 4}))
    assert watch.look()["throttled"] is False
    write(tmp_path, {file.format(1): 5})
    assert watch.look()["throttled"] is True
    assert watch.look()["throttled"] is False


def test_a_phone_holds_its_clock_back(tmp_path: Path) -> None:
    device = "sys/class/thermal/cooling_device{}/{}"
    fan = {device.format(1, "type"): "gpio-fan", device.format(1, "cur_state"): 2}
    write(tmp_path, {device.format(0, "type"): "thermal-cpufreq-0", device.format(0, "cur_state"): 0, **fan})
    assert heat.Watch(tmp_path).look()["throttled"] is False
    write(tmp_path, {device.format(0, "cur_state"): 3})
    assert heat.Watch(tmp_path).look()["throttled"] is True


def wait(temperatures: list[float | None], start: float | None = 50.0, limit: float = 60.0) -> float:
    left = iter(temperatures)
    return heat.cool_down(start, read=lambda: next(left), limit_s=limit, sleep=lambda _: None)


def test_waits_until_it_is_near_the_start() -> None:
    assert wait([60.0, 55.0, 53.1, 52.9]) == 3
    assert wait([49.0]) == 0
    assert wait([90.0] * 10, limit=5) == 5
    assert wait([90.0, None]) == 1
    assert wait([90.0], start=None) == 0


def test_what_was_waited_for_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heat.machine, "temperature_c", lambda: None)
    assert heat.Cooling().told() == "cool-down: none, as no temperature is told here"
    monkeypatch.setattr(heat.machine, "temperature_c", lambda: 48.7)
    waits = iter([0.0, 12.0, 60.0])
    monkeypatch.setattr(heat, "cool_down", lambda *_, **__: next(waits))
    cooling = heat.Cooling()
    cooling.before("the loop")
    assert cooling.told() == "cool-down: not needed, to be within 3 °C of 48.7 °C"
    cooling.before("the rerun")
    cooling.before("the energy of a")
    assert cooling.told() == (
        "cool-down: 12 s before the rerun, 60 s before the energy of a (the limit), "
        "to be within 3 °C of 48.7 °C"
    )
