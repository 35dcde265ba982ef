"""examples/c, cross-compiled for arm64 and run there: golden answers with no Python."""

import shutil
import subprocess
import zipfile
from pathlib import Path

import arm64_c
import numpy as np
import pytest

SOURCE = Path(__file__).parents[2] / "examples" / "c"
pytestmark = [pytest.mark.device, pytest.mark.slow]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    arm64_c.need_tools()
    folder = tmp_path_factory.mktemp("c")
    for name in ("golden.c", "npz.c", "npz.h", "Makefile"):
        shutil.copy(SOURCE / name, folder)
    variables = [
        "CC=aarch64-linux-gnu-gcc", f"SYSROOT={arm64_c.root()}", f"ORT={arm64_c.library()}"
    ]  # fmt: skip
    done = subprocess.run(["make", "-C", folder, *variables], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "golden"


def with_golden(bundle: Path, out: Path, save=np.savez, **changed) -> Path:
    shutil.copytree(bundle, out)
    with np.load(bundle / "golden.npz") as arrays:
        save(out / "golden.npz", **{**arrays, **changed})
    return out


@pytest.mark.parametrize("cpu", ["cortex-a72", "cortex-a76"])
@pytest.mark.parametrize("variant", ["onnx-fp32", "onnx-int8"])
def test_golden_answers_match_on_arm64(program, tiny_bundle, variant, cpu):
    done = arm64_c.run(program, tiny_bundle, "/bundle", variant, cpu=cpu)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "same label 1.0000" in done.stdout and done.stdout.endswith(": the same model\n")


def test_a_stored_npz_is_read_too(program, tiny_bundle, tmp_path):
    bundle = with_golden(tiny_bundle, tmp_path / "stored")
    assert zipfile.ZipFile(bundle / "golden.npz").infolist()[0].compress_type == zipfile.ZIP_STORED
    assert arm64_c.run(program, bundle, "/bundle", "onnx-fp32").returncode == 0


def test_another_model_exits_with_3(program, tiny_bundle, tmp_path):
    with np.load(tiny_bundle / "golden.npz") as arrays:
        logits = arrays["logits"] + np.float32(0.01)
    bundle = with_golden(tiny_bundle, tmp_path / "other", np.savez_compressed, logits=logits)
    done = arm64_c.run(program, bundle, "/bundle", "onnx-fp32")
    assert done.returncode == 3 and "max abs 0.01" in done.stdout and "ANOTHER MODEL" in done.stdout


def test_bad_input_is_one_line_and_exit_2(program, tiny_bundle, tmp_path):
    cut = with_golden(tiny_bundle, tmp_path / "cut")
    data = (cut / "golden.npz").read_bytes()
    (cut / "golden.npz").write_bytes(data[: len(data) // 2])
    for bundle, args in (
        (cut, ("/bundle", "onnx-fp32")),
        (tiny_bundle, ("/bundle", "onnx-int3")),
        (tiny_bundle, ("/nowhere", "onnx-fp32")),
        (tiny_bundle, ("/bundle", "../golden")),
        (tiny_bundle, ("/bundle",)),
    ):
        done = arm64_c.run(program, bundle, *args)
        assert done.returncode == 2, (args, done.stdout, done.stderr)
        assert len(done.stderr.strip().splitlines()) == 1 and not done.stdout


def test_damaged_archives_never_crash_it(program, tiny_bundle, tmp_path):
    """A dozen files with a few bytes changed: an exit code of ours each time, no signal."""
    bundle = with_golden(tiny_bundle, tmp_path / "fuzzed")
    whole, random = (bundle / "golden.npz").read_bytes(), np.random.default_rng(0)
    for _ in range(12):
        data = bytearray(whole)
        heads = np.concatenate([np.arange(60), np.arange(len(data) - 400, len(data))])
        for place in random.choice(heads, 4, replace=False):
            data[place] = random.integers(256)
        (bundle / "golden.npz").write_bytes(data)
        assert arm64_c.run(program, bundle, "/bundle", "onnx-fp32").returncode in (0, 2, 3)
