"""Which packages go to a device, and what is said where none can."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pi import packages, python32

from device_bench.devices import wheels
from device_bench.devices.host import HostDevice
from device_bench.devices.local import LocalChannel
from device_bench.remote import answers_on
from runtimes.bundle import open_bundle
from runtimes.errors import EngineError

ROOT = Path(__file__).parents[3]


def about(machine="aarch64", python="3.11.2", libc=("glibc", "2.36"), packages=None, engines=None):
    return {
        "machine": machine, "python": python, "libc": list(libc), "packages": packages or {},
        "engines": engines or {},
    }  # fmt: skip


@pytest.fixture
def fetched(monkeypatch, tmp_path):
    """The index is a list: every wheel is there unless named in `lacks`; gives what was asked for."""
    asked, lacks = [], set()

    def download(pin, python, tags, folder):
        asked.append(pin)
        if pin in lacks:
            return ""
        name = pin.replace("-", "_").replace("==", "-")
        with zipfile.ZipFile(Path(folder) / f"{name}-py3-none-{tags[0]}.whl", "w") as wheel:
            for member in ("__init__.py", "tests/test_p.py", "types.pyi"):
                wheel.writestr(f"{name}/{member}", pin)
            for member in (f"{name}.data/purelib/{name}.py", f"{name}.data/scripts/p"):
                wheel.writestr(member, pin)
        return None

    monkeypatch.setattr(wheels, "_download", download)
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path))
    return asked, lacks


def test_the_pinned_versions_are_those_that_the_project_is_tested_with():
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().split("\n") if "==" in line
    )
    old = {"tflite-runtime": "2.14.0"}  # the last there is, in no environment of the project
    assert {name: pins[name] for name in wheels.VERSIONS if name not in old} | old == wheels.VERSIONS


def test_an_empty_device_gets_all(fetched):
    archive, has = wheels.missing(about(), ["onnx", "litert"], print)
    assert has == ["onnx", "litert"]
    assert fetched[0] == [
        f"{name}=={wheels.VERSIONS[name]}"
        for name in ("onnxruntime", "ai-edge-litert", "numpy", "tokenizers")
    ]
    names = [pin.replace("-", "_").replace("==", "-") for pin in fetched[0]]
    wanted = [f"{name}{rest}" for name in names for rest in ("/__init__.py", ".py")]
    assert sorted(zipfile.ZipFile(archive).namelist()) == sorted(wanted)


def test_what_the_device_has_is_used(fetched):
    there = about(
        packages={"numpy": "1.24.2", "tokenizers": "0.21.0"}, engines={"onnx": "onnxruntime 1.20.0"}
    )
    assert wheels.missing(there, ["onnx"], print) == (None, ["onnx"])
    assert fetched[0] == []


def test_a_second_time_nothing_is_fetched_and_the_bytes_are_the_same(fetched):
    first, _ = wheels.missing(about(), ["onnx"], print)
    data = first.read_bytes()
    asked = list(fetched[0])
    assert wheels.missing(about(), ["onnx"], print)[0] == first
    first.unlink()
    assert wheels.missing(about(), ["onnx"], print)[0].read_bytes() == data
    assert fetched[0] == asked


@pytest.mark.parametrize(
    "numpy, wanted", [("", ["numpy==1.26.4"]), ("2.1.0", ["numpy==1.26.4"]), ("1.24.2", [])]
)
def test_tflite_runtime_gets_a_numpy_of_its_time(fetched, numpy, wanted):
    has_it = {"tokenizers": "0.22.2"} | ({"numpy": numpy} if numpy else {})
    old = about(packages=has_it, engines={"litert": "tflite-runtime 2.14.0"})
    assert wheels.missing(old, ["litert"], print)[1] == ["litert"]
    assert fetched[0] == wanted


def test_a_32_bit_device_runs_tflite_runtime_on_its_own_numpy(fetched):
    said = []
    small = about(machine="armv7l", packages={"numpy": "1.24.2"})
    assert wheels.missing(small, ["onnx", "litert"], said.append)[1] == ["litert"]
    assert fetched[0] == ["tflite-runtime==2.14.0", "tokenizers==0.22.2"]
    assert said[0] == "onnx: no package of it for Python 3.11 on armv7l"


def test_a_32_bit_device_without_numpy_is_told_what_to_install(fetched):
    with pytest.raises(
        EngineError, match="numpy 1.26.4 has no wheel .* on armv7l; .*apt install python3-numpy"
    ):
        wheels.missing(about(machine="armv7l"), ["litert"], print)


def test_a_python_that_the_engine_has_no_wheel_for_gets_the_other_or_none(fetched):
    fetched[1].add("ai-edge-litert==2.3.0")
    assert wheels.missing(about(), ["litert"], print)[1] == ["litert"]
    assert "tflite-runtime==2.14.0" in fetched[0]
    fetched[1].update({"tflite-runtime==2.14.0", "onnxruntime==1.32.0"})
    assert wheels.missing(about(python="3.15.0"), ["litert", "onnx"], print) == (None, [])


@pytest.mark.parametrize(
    "there", [about(libc=("", "")), about(libc=("glibc", "2.5")), about(machine="armv6l")]
)
def test_no_wheel_runs_on_other_systems(fetched, there):
    assert wheels.missing(there, ["onnx", "litert", "executorch"], print) == (None, [])
    assert fetched[0] == []


@given(minor=st.integers(17, 60), machine=st.sampled_from(["aarch64", "armv7l", "x86_64"]))
def test_every_tag_up_to_the_devices_own_glibc_and_none_above(minor, machine):
    tags = wheels._tags(about(machine=machine, libc=("glibc", f"2.{minor}")))
    numbers = [int(tag.split("_")[2]) for tag in tags[:-1]]
    assert numbers == list(range(minor, 16, -1))
    assert all(tag.endswith(machine) for tag in tags)


def test_no_network_and_nothing_cached_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(EngineError, match="onnxruntime .* was not fetched: the package index is not reached"):
        wheels.missing(about(), ["onnx"], print)


@pytest.mark.device
@pytest.mark.slow
def test_armv7l_answers_as_the_checkpoint_does(tiny_bundle, monkeypatch):
    """A real 32-bit ARM Python with Debian's numpy 1.24, tflite-runtime 2.14 from its wheel."""
    from export.gate import check_answers

    channel = LocalChannel()
    channel.name, channel.python = "armv7l", python32()
    monkeypatch.setenv("QEMU_CPU", "cortex-a7")
    device, bundle = HostDevice(channel), open_bundle(tiny_bundle)
    try:
        there = answers_on(device, bundle, None, [str(text) for text in bundle.golden()["texts"]])
        told = device.describe()
    finally:
        device.close()
    assert there.keys() == {"tflite-fp32"}
    assert (there["tflite-fp32"]["engine"], there["tflite-fp32"]["engine_version"]) == (
        "tflite_runtime",
        "2.14.0",
    )
    assert check_answers(bundle, there)["variants"]["tflite-fp32"]["golden"]["max_abs"] < 1e-4
    assert told["machine"] == "armv7l" and told["emulated"] and told["packages"]["numpy"].startswith("1.24")
    assert not Path(channel.work).exists()


OLD = """
import sys
import numpy as np
from runtimes.errors import EngineError
from runtimes.load import load
model = load(sys.argv[1], variant="tflite-fp32", threads=1)
np.save(sys.argv[2], model.logits([str(text) for text in np.load(sys.argv[1] + "/golden.npz")["texts"]]))
print(model.describe())
try:
    load(sys.argv[1], variant="tflite-dynamic_wi8_afp32", threads=1)
except EngineError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="tflite-runtime 2.14 here is built for Python 3.11"
)
def test_tflite_runtime_is_right_on_fp32_and_refuses_what_it_would_misread(tiny_bundle, tmp_path):
    pins = {"tflite_runtime": "2.14.0", "numpy": "1.26.4", "tokenizers": "0.22.2"}
    paths = f"{packages('amd64', **pins)}:{ROOT}"
    command = [sys.executable, "-P", "-S", "-c", OLD, str(tiny_bundle), str(tmp_path / "logits.npy")]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": paths}, check=False)
    assert done.returncode == 0, done.stderr
    assert "'engine': 'tflite_runtime', 'engine_version': '2.14.0'" in done.stdout
    assert "'providers': ['XNNPACK']" in done.stdout
    assert "tflite-runtime misreads variants/tflite-dynamic_wi8_afp32/model.tflite" in done.stdout
    golden = np.load(tiny_bundle / "golden.npz")["logits"]
    assert np.abs(np.load(tmp_path / "logits.npy") - golden).max() < 1e-4


def test_what_is_left_out_of_the_archive_is_not_needed(tmp_path):
    """The engines start from the archive's files alone: here those for this machine."""
    if sys.platform != "linux" or shutil.which("ldd") is None:
        pytest.skip("manylinux wheels")
    folder = packages("amd64", **{name.replace("-", "_"): wheels.VERSIONS[name] for name in wheels.VERSIONS
                                  if name != "tflite-runtime"})  # fmt: skip
    code = "import onnxruntime, tokenizers, numpy; from ai_edge_litert.interpreter import Interpreter"
    command = [sys.executable, "-P", "-S", "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"PYTHONPATH": str(folder)}, check=False
    )
    assert done.returncode == 0, done.stderr
