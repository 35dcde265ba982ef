import pytest

from device_bench.devices import android

PROPS = """[ro.board.platform]: [zuma]
[ro.build.version.release]: [14]
[ro.build.version.sdk]: [34]
[ro.hardware]: [shiba]
[ro.product.cpu.abi]: [arm64-v8a]
[ro.product.cpu.abilist]: [arm64-v8a]
[ro.product.manufacturer]: [Google]
[ro.product.model]: [Pixel 8]
[ro.soc.manufacturer]: [Google]
[ro.soc.model]: [Tensor G3]
[persist.sys.locale]: []
"""
THERMAL = """IsStatusOverride: false
ThermalEventListeners:
	callbacks: 1
	killed: false
	broadcasts count: -1
ThermalStatusListeners:
	callbacks: 2
	killed: false
	broadcasts count: -1
Thermal Status: 2
Cached temperatures:
	Temperature{mValue=37.0, mType=0, mName=BIG, mStatus=0}
	Temperature{mValue=99.0, mType=3, mName=VIRTUAL-SKIN, mStatus=0}
HAL Ready: true
HAL connection:
	ThermalHAL AIDL 1  connected: yes
Current temperatures from HAL:
	Temperature{mValue=66.54, mType=0, mName=BIG, mStatus=0}
	Temperature{mValue=58.2, mType=0, mName=LITTLE, mStatus=0}
	Temperature{mValue=61.0, mType=1, mName=G3D, mStatus=0}
	Temperature{mValue=39.1, mType=3, mName=VIRTUAL-SKIN, mStatus=2}
	Temperature{mValue=-5700.0, mType=-1, mName=soc, mStatus=0}
Current cooling devices from HAL:
	CoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-2}
Temperature static thresholds from HAL:
	{.type = SKIN, .name = VIRTUAL-SKIN, .hotThrottlingThresholds = [NaN, 39.0, 43.0, 45.0, 46.5, 52.0, 55.0]}
"""
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Dock powered: false
  Max charging current: 500000
  Charge counter: 3270000
  status: 2
  health: 2
  present: true
  level: 83
  scale: 100
  voltage: 4352
  temperature: 287
  technology: Li-ion
  Capacity level: -1
[EventLogBuffer]
08-11 18:34:14.721  Sending ACTION_BATTERY_CHANGED: level:72, health:2, temperature:345
"""
SEEN = {"name": "aarch64", "soc": None, "cores": 9, "os": "Linux 6.1 aarch64", "governor": "sched_pixel",
        "memory_mb": 7500, "temperature_c": None, "throttled": None}  # fmt: skip


def test_the_device_block_of_a_phone_that_tells_everything():
    known = android.props(PROPS.replace("\n", "\r\n"))
    assert android.abi(known) == "arm64-v8a" and not android.emulator(known)
    block = android.block(SEEN, known, android.thermal(THERMAL), android.battery(BATTERY))
    assert block == {
        "name": "Google Pixel 8", "soc": "Google Tensor G3", "cores": 9, "memory_mb": 7500,
        "os": "Android 14 (API 34), Linux 6.1 aarch64", "governor": "sched_pixel",
        "temperature_c": 66.5, "throttled": "moderate",
        "battery": {"level_percent": 83, "temperature_c": 28.7, "plugged": True},
    }  # fmt: skip


def test_a_phone_that_tells_nothing_leaves_what_the_kernel_shows():
    assert android.block(SEEN, {}, android.thermal(""), android.battery("")) == SEEN
    denied = "Can't find service: thermalservice\n"
    assert android.thermal(denied) == {"throttled": None, "temperature_c": None}
    assert android.abi({}) == ""


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("Thermal Status: 0\nHAL Ready: false\n", ("none", None)),
        ("Thermal Status: 6\n\tTemperature{mValue=41.25, mType=3, mName=s, mStatus=6}\n", ("shutdown", 41.2)),
        ("Thermal Status: 9\n\tTemperature{mValue=30.0, mType=2, mName=battery, mStatus=0}\n", (None, None)),
        ("Current temperatures from HAL:\nCurrent cooling devices from HAL:\n", (None, None)),
    ],
)  # fmt: skip
def test_thermal_statuses(lines, expected):
    told = android.thermal(lines)
    assert (told["throttled"], told["temperature_c"]) == expected


def test_names_and_chips_as_makers_write_them():
    def named(**given):
        known = {f"ro.{key.replace('_', '.')}": value for key, value in given.items()}
        block = android.block({}, known, android.thermal(""), android.battery(""))
        return block.get("name"), block.get("soc")

    assert named(product_manufacturer="samsung", product_model="SM-S928B") == ("samsung SM-S928B", None)
    assert named(product_manufacturer="HTC", product_model="htc One", hardware="qcom") == ("htc One", "qcom")
    assert named(soc_model="unknown", board_platform="taro") == (None, "taro")


def test_the_primary_abi_counts_and_an_emulator_is_one():
    props = android.props("[ro.product.cpu.abilist]: [x86_64,arm64-v8a]\n[ro.kernel.qemu]: [1]\n")
    assert android.abi(props) == "x86_64" and android.emulator(props)


def test_a_battery_that_is_not_there():
    told = android.battery(
        "Current Battery Service state:\n  AC powered: false\n  present: false\n  level: -1\n"
    )
    assert told == {"level_percent": None, "temperature_c": None, "plugged": False}
