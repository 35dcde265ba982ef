"""Meters on samples that follow the documented formats of each source; no device at hand recorded them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_bench import meters
from device_bench.meters import Meter, find

# The format that the firmware of a Raspberry Pi 5 prints, shortened to three rails and two inputs.
PMIC = """ 3V7_WL_SW_A current(0)=0.09857000A
   3V3_SYS_A current(1)=0.05000000A
VDD_CORE_A current(7)=1.20000000A
 3V7_WL_SW_V volt(8)=3.70000000V
   3V3_SYS_V volt(9)=3.30000000V
VDD_CORE_V volt(15)=0.80000000V
   EXT5V_V volt(24)=5.14838000V
    BATT_V volt(25)=0.00000000V
"""
# The kernel driver's own words: t=<ms>, CH<N>(T=<ms>)[<schematic name>], <accumulated energy, uWs>.
ODPM = """t=349894
CH0(T=349894)[S10M_VDD_TPU], 5578756
CH1(T=349894)[VSYS_PWR_MODEM], 29110940
CH2(T=349894)[S2M_VDD_CPUCL2], 100000
"""
# What Android's power-stats service prints: state residencies, consumers, then the meter.
POWERSTATS = """
============= PowerStats HAL 2.0 energy consumers ==============
CPUCL0       :     99999.99 mWs
========== End of PowerStats HAL 2.0 energy consumers ==========

============= PowerStats HAL 2.0 energy meter ==============
                           Channel   Cumulative Energy
              [S10M_VDD_TPU]:TPU          5578.75 mWs
           [VSYS_PWR_MODEM]:Modem        29110.25 mWs
========== End of PowerStats HAL 2.0 energy meter ==========
"""
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: false
  Wireless powered: false
  Max charging current: 0
  Charge counter: 2000000
  status: 3
  level: 52
  voltage: 4000
  temperature: 280
  technology: Li-ion
"""


def none(command: Sequence[str]) -> str:
    raise FileNotFoundError(command[0])


def answers(**told: str) -> Callable[[Sequence[str]], str]:
    """Commands by their first word and, where there is one, the last part of their argument."""

    def ask(command: Sequence[str]) -> str:
        for key in (command[0], f"{command[0]}_{command[-1].rpartition('/')[2]}"):
            if key in told:
                return told[key]
        raise FileNotFoundError(command[0])

    return ask


def write(root: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")
    return root


def found(root: Path, ask: Callable[[Sequence[str]], str] = none) -> Meter:
    meter, reason = find(root, ask)
    assert meter is not None, reason
    assert reason == ""
    return meter


def test_a_pi_5(tmp_path: Path) -> None:
    meter = found(tmp_path, answers(vcgencmd=PMIC))
    assert (meter.source, meter.counts) == ("Raspberry Pi PMIC", False)
    assert meter.read() == pytest.approx(0.09857 * 3.7 + 0.05 * 3.3 + 1.2 * 0.8)


def test_a_pi_4_has_no_power_meter(tmp_path: Path) -> None:
    meter, reason = find(tmp_path, answers(vcgencmd='error=1 error_msg="Command not registered"\n'))
    assert meter is None
    assert reason == "this Raspberry Pi tells no power (a Pi 5 does): wire an INA219 into its supply"


def test_an_ina219_of_either_driver(tmp_path: Path) -> None:
    hwmon = {"sys/class/hwmon/hwmon0/name": "cpu_thermal", "sys/class/hwmon/hwmon2/name": "ina219"}
    meter = found(write(tmp_path / "a", {**hwmon, "sys/class/hwmon/hwmon2/power1_input": 2_460_000}))
    assert (meter.source, meter.read()) == ("ina219 (hwmon)", pytest.approx(2.46))
    iio = "sys/bus/iio/devices/iio:device0"
    root = write(tmp_path / "b", {f"{iio}/name": "ina219", f"{iio}/in_power2_raw": 123})
    meter = found(write(root, {f"{iio}/in_power2_scale": 20}))
    assert (meter.source, meter.read()) == ("ina219 (iio)", pytest.approx(2.46))


def test_power_rails_by_the_kernel_and_by_the_service(tmp_path: Path) -> None:
    for number, name in enumerate(("s2mpg10-odpm", "s2mpg11-odpm")):
        folder = f"sys/bus/iio/devices/iio:device{number}"
        write(tmp_path, {f"{folder}/name": name, f"{folder}/energy_value": ODPM})
    meter = found(tmp_path)
    assert (meter.source, meter.counts) == ("power rails (s2mpg10-odpm, s2mpg11-odpm)", True)
    assert meter.read() == pytest.approx(2 * (5.578756 + 29.110940 + 0.1))
    meter = found(tmp_path / "none", answers(dumpsys_default=POWERSTATS))
    assert (meter.source, meter.read()) == ("power rails (power-stats)", pytest.approx(34.689))


def test_a_phone_on_its_battery(tmp_path: Path) -> None:
    meter = found(tmp_path, answers(dumpsys_default="no such service", dumpsys_battery=BATTERY))
    assert (meter.source, meter.counts, meter.read()) == ("battery counter", True, 2.0 * 3600 * 4.0)
    plugged = BATTERY.replace("USB powered: false", "USB powered: true")
    meter_or_none, reason = find(tmp_path, answers(dumpsys_default="", dumpsys_battery=plugged))
    assert meter_or_none is None
    assert reason.startswith("this phone tells no power rails")
    assert "plugged in" in reason and "adb over Wi-Fi" in reason


def battery(root: Path, **more: object) -> Path:
    values = {"type": "Battery", "status": "Discharging", "current_now": -512_000, "voltage_now": 4_000_000}
    return write(root, {f"sys/class/power_supply/battery/{key}": v for key, v in {**values, **more}.items()})


def test_a_battery_in_sysfs(tmp_path: Path) -> None:
    meter = found(battery(tmp_path))
    assert (meter.source, meter.read()) == ("battery battery", pytest.approx(2.048))
    battery(tmp_path, status="Charging")
    with pytest.raises(OSError, match="plugged in"):
        meter.read()
    assert find(tmp_path, none)[1].startswith("battery battery: it is plugged in")
    battery(tmp_path, status="Discharging", current_now=412)
    assert "current_now tells 412, which are no microamperes" in find(tmp_path, none)[1]
    battery(tmp_path, power_now=7_500_000)
    assert found(tmp_path).read() == 7.5


def rapl(root: Path, package: int, dram: int = 0, core: int = 0) -> Path:
    zones = {"intel-rapl:0": ("package-0", package), "intel-rapl:0:0": ("core", core),
             "intel-rapl:0:1": ("dram", dram), "intel-rapl:1": ("psys", 9)}  # fmt: skip
    for zone, (name, value) in zones.items():
        folder = f"sys/class/powercap/{zone}"
        more = {f"{folder}/max_energy_range_uj": 1000, f"{folder}/energy_uj": value}
        write(root, {f"{folder}/name": name, **more})
    return root


def test_rapl_counts_packages_and_memory_and_wraps_around(tmp_path: Path) -> None:
    meter = found(rapl(tmp_path, 900, 10))
    assert (meter.source, meter.counts, meter.read()) == ("RAPL (package-0, dram)", True, 0.0)
    rapl(tmp_path, 950, 30, core=500)
    assert meter.read() == pytest.approx(70e-6)
    rapl(tmp_path, 20, 30)
    assert meter.read() == pytest.approx(140e-6)


def test_rapl_that_only_root_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rapl(tmp_path, 1)
    told = meters._read

    def read(path: Path) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return told(path)

    monkeypatch.setattr(meters, "_read", read)  # the tests may run as root, who may read everything
    meter, reason = find(tmp_path, none)
    assert meter is None
    assert reason == "RAPL is there, but only root may read energy_uj under /sys/class/powercap: run as root"


def test_nothing_there_is_told_source_by_source(tmp_path: Path) -> None:
    meter, reason = find(tmp_path, none)
    assert meter is None
    for word in ("vcgencmd", "INA219", "power rails", "RAPL", "battery"):
        assert word in reason


def test_a_command_that_fails_or_is_missing() -> None:
    with pytest.raises(FileNotFoundError):
        meters.ask(["no-such-command-here"])
    with pytest.raises(OSError, match="sh: out of order"):
        meters.ask(["sh", "-c", "echo out of order >&2; exit 3"])
    assert meters.ask(["sh", "-c", "echo 1"]) == "1\n"


PARSERS = [meters.pmic_watts, meters.odpm_joules, meters.powerstats_joules, meters.battery_joules]
words = st.sampled_from(
    [*PMIC.splitlines(), *ODPM.splitlines(), *POWERSTATS.splitlines(), *BATTERY.splitlines()]
)


@settings(deadline=None, max_examples=50)
@given(st.lists(words | st.text(), max_size=30).map("\n".join))
def test_any_text_is_a_figure_or_a_value_error(text: str) -> None:
    for parse in PARSERS:
        try:
            assert parse(text) > -1e12
        except ValueError as error:
            assert str(error)


@settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(
        st.text("ABC3V_", min_size=1, max_size=8), st.tuples(st.floats(0, 9), st.floats(0, 9)), min_size=1
    )
)
def test_the_power_chip_sums_every_rail(rails: dict[str, tuple[float, float]]) -> None:
    amperes = [f"  {name}_A current({at})={a:.8f}A" for at, (name, (_, a)) in enumerate(rails.items())]
    volts = [f"{name}_V volt({at})={v:.8f}V" for at, (name, (v, _)) in enumerate(rails.items())]
    got = meters.pmic_watts("\n".join([*amperes, *volts, "EXT5V_V volt(24)=5.1V"]))
    assert got == pytest.approx(sum(v * a for v, a in rails.values()), abs=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 999), min_size=2, max_size=20))
def test_a_counter_never_runs_back(steps: list[int]) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = Path(folder, "energy_uj")
        path.write_text("0")
        counter, at = meters._Counter({path: 1000}), 0
        for step in steps:
            at += step
            path.write_text(str(at % 1000))
            assert counter.read() == at
