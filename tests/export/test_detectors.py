"""A detector's variants, its header, its arena, and the gate that holds them to the checkpoint."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from apart import need
from hypothesis import given
from hypothesis import strategies as some

from compress.child import in_child
from export.arena import ALIGNMENT, Buffer, about_arena, arena_bytes, buffers_of, least_bytes
from export.gate import check, check_answers
from export.judge import judge, series_to_judge
from export.variant import KNOWN
from export.variants import export_variant
from export.windows import border_of
from runtimes.bundle import open_bundle, seal
from runtimes.errors import BundleError, GateError, InputError
from runtimes.golden import inputs_of, outputs_of
from runtimes.load import load
from runtimes.windows import normalise
from trainers.series_data import open_series, windows_of

OFF = {"onnx-fp32": 1e-5, "onnx-int8": 0.1, "tflite-full_int8": 0.1}


def step(folder, name):
    return next((folder / "runs" / "tiny").glob(f"{name}-*"))


@pytest.fixture(scope="module")
def series(tiny_monitor):
    return open_series(step(tiny_monitor, "data"))


@pytest.fixture(scope="module")
def small(detector_bundle):
    """The all-integer .tflite, with model.h beside it."""
    return detector_bundle / "variants" / "tflite-full_int8" / "model.tflite"


@pytest.mark.parametrize("name", OFF)
def test_it_answers_like_the_checkpoint(name, detector_bundle, tiny_monitor, series):
    windows = windows_of(series, 64, 8, rest=True)
    want = np.stack(load(step(tiny_monitor, "student"), threads=1).outputs(windows))
    model = load(detector_bundle, variant=name, threads=1)
    got = np.stack(model.outputs(windows))
    assert got.shape == want.shape == (len(windows), 72) and got.dtype == np.float32
    assert np.quantile(np.abs(got - want), 0.99) <= OFF[name]  # int8 cuts a few extremes off
    alone = np.concatenate([model.run(model.prepare([window])) for window in windows[:20]])
    np.testing.assert_allclose(alone, got[:20], atol=1e-5)  # whatever else is in the batch


def test_what_is_beyond_the_border_goes_to_its_end(detector_bundle):
    """int8 wraps where nobody clips: a huge value would come in as a small one."""
    model = load(detector_bundle, variant="tflite-full_int8", threads=1)
    high, higher = (np.full(64, value, np.float32) for value in (5.0, 5_000.0))
    np.testing.assert_array_equal(model.outputs([high])[0], model.outputs([higher])[0])


def test_the_header_says_what_firmware_must_know(small):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(small))
    (into,), (out,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert into["dtype"] is np.int8 and out["dtype"] is np.int8
    text = small.with_suffix(".h").read_text()
    told = dict(re.findall(r"#define (MODEL_\w+) \(?([-\d.e]+)f?\)?", text))
    assert int(told["MODEL_WINDOW"]) == 64 and int(told["MODEL_PATCH"]) == 8
    for name, detail in (("INPUT", into), ("OUTPUT", out)):
        scale, zero = detail["quantization"]
        assert float(told[f"MODEL_{name}_SCALE"]) == pytest.approx(scale, rel=1e-7)
        assert int(told[f"MODEL_{name}_ZERO_POINT"]) == zero
    assert int(told["MODEL_ARENA_TENSOR_BYTES"]) == arena_bytes(buffers_of(small))


HELP = Path(__file__).parents[2] / "examples" / "c" / "detector.h"
SOURCE = """#include <stdio.h>
#include "model.h"
#include "detector.h"
static unsigned char arena[MODEL_ARENA_TENSOR_BYTES];
int main(void) {
  float points[MODEL_WINDOW];
  int8_t input[MODEL_WINDOW];
  DetectorChannel channel = {10.0f, 2.0f};
  for (int n = 0; n < MODEL_WINDOW; n++)
    if (scanf("%f", &points[n]) != 1) return 1;
  DetectorWindow window = detector_input(points, channel, input);
  for (int n = 0; n < MODEL_WINDOW; n++) printf("%d ", input[n]);
  printf("%.6f ", detector_expected(input[0], window, channel));
  printf("%.6f ", detector_error(14.0f, 11.0f, 0.5f, channel));
  printf("%d %u %zu %.4s", MODEL_PATCH, model_tflite_len, sizeof arena, (const char *)model_tflite + 4);
  return 0;
}
"""


@pytest.mark.parametrize("compiler", ["gcc", "aarch64-linux-gnu-gcc"])
def test_firmware_reads_a_window_as_the_runtime_does(compiler, small, tmp_path):
    need(shutil.which(compiler) is not None, compiler)
    for file in (small.with_suffix(".h"), HELP):
        shutil.copy(file, tmp_path)
    (tmp_path / "main.c").write_text(SOURCE)
    command = [compiler, "-std=c11", "-Wall", "-Werror", "-static", "main.c", "-o", "main", "-lm"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = [str(tmp_path / "main")]
    if compiler.startswith("aarch64"):
        emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
        need(emulator is not None, "qemu-aarch64")
        run = [str(emulator), *run]
    points = np.float32(10 + 3 * np.sin(np.arange(64) / 3))
    points[20] += 40  # is cut off
    given = " ".join(f"{point:.9g}" for point in points)
    told = subprocess.run(run, input=given, capture_output=True, text=True, check=True).stdout.split()
    border = border_of(str(small))
    (scale, zero), (out, zero_out) = border["input"], border["output"]
    rows, mean, spread = normalise((points[None].astype(float) - 10) / 2)
    steps = np.clip(np.rint(rows[0] / np.float32(scale)) + zero, -128, 127)
    np.testing.assert_allclose(np.array(told[:64], float), steps, atol=1)  # a tie falls either way
    back = (float(told[0]) - zero_out) * out
    assert float(told[64]) == pytest.approx((back * spread[0] + mean[0]) * 2 + 10, rel=1e-4)
    assert float(told[65]) == pytest.approx(3.0)
    assert told[66:] == ["8", str(small.stat().st_size), str(border["arena"]), "TFL3"]


BUFFERS = some.builds(
    lambda blocks, first, lives: Buffer(blocks * ALIGNMENT, first, first + lives),
    some.integers(1, 50), some.integers(0, 30), some.integers(0, 10),
)  # fmt: skip


@given(some.lists(BUFFERS, max_size=25))
def test_an_arena_is_between_what_lives_at_once_and_all(buffers):
    size = arena_bytes(buffers)
    assert least_bytes(buffers) <= size <= sum(one.size for one in buffers)


def test_arenas_that_can_be_told_by_hand():
    chain = [Buffer(64, 0, 1), Buffer(64, 1, 2), Buffer(64, 2, 3)]
    assert arena_bytes(chain) == 128
    assert arena_bytes([Buffer(32, 0, 5), *chain]) == 160
    assert arena_bytes([]) == least_bytes([]) == 0


def test_the_arena_of_a_real_graph(small):
    told = about_arena(str(small))
    assert told["arena"] % ALIGNMENT == 0 and 64 + 72 < told["least"] <= told["arena"] < 4_000
    assert told["operators"]["FULLY_CONNECTED"] >= 8 and "DEQUANTIZE" not in told["operators"]


def test_a_microcontrollers_interpreter_answers_the_same(small, detector_bundle, tmp_path):
    """TensorFlow Lite Micro itself, with its reference kernels, in an arena of its own."""
    from export import micro

    need(micro.installed(), "tflite-micro")
    windows = inputs_of(open_bundle(detector_bundle).golden())
    np.save(tmp_path / "in.npy", np.stack(windows))
    places = {"inputs_at": str(tmp_path / "in.npy"), "outputs_at": str(tmp_path / "out.npy")}
    taken = in_child(micro.run_micro, model=str(small), **places)
    wanted = np.stack(load(detector_bundle, variant="tflite-full_int8", threads=1).outputs(windows))
    steps = np.abs(np.load(tmp_path / "out.npy") - wanted) / border_of(str(small))["output"][0]
    assert steps.max() < 3.5 and (steps < 0.5).mean() > 0.9
    assert about_arena(str(small))["arena"] <= taken["head"] <= taken["total"] < 64 << 10


def altered(bundle, out, name):
    """A copy in which one variant is another model: the first half of its weights' bytes is shifted."""
    shutil.copytree(bundle.resolve(), out)
    about = open_bundle(out).variants[name]
    import onnx
    from onnx import numpy_helper

    model = onnx.load(out / about["file"])
    for tensor in model.graph.initializer:
        weight = numpy_helper.to_array(tensor)
        if weight.ndim == 2 and weight.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(weight * np.float32(0.7), tensor.name))
    onnx.save(model, out / about["file"])
    manifest = open_manifest(out)
    seal(out, manifest, manifest["files"])
    return out


def open_manifest(folder):
    return json.loads((folder / "bundle.json").read_bytes())


def test_another_model_does_not_pass(detector_bundle, tmp_path):
    broken = altered(detector_bundle, tmp_path / "broken", "onnx-fp32")
    with pytest.raises(GateError, match="variant onnx-fp32 is not the same model: golden max_abs"):
        check(broken)


def test_a_device_that_answers_otherwise_does_not_pass(detector_bundle):
    bundle = open_bundle(detector_bundle)
    golden = bundle.golden()
    rows = {"ids": [row.tolist() for row in inputs_of(golden)]}
    rows["outputs"] = [row.tolist() for row in outputs_of(golden)]
    assert check_answers(bundle, {"onnx-fp32": rows})["variants"]["onnx-fp32"]["golden"]["max_abs"] == 0
    with pytest.raises(GateError, match="not the same model there"):
        check_answers(bundle, {"onnx-int8": rows | {"outputs": (np.array(rows["outputs"]) * 0.3).tolist()}})
    with pytest.raises(GateError, match="tokenizes otherwise"):
        check_answers(bundle, {"onnx-int8": rows | {"ids": (np.array(rows["ids"]) + 1).tolist()}})


def test_a_series_that_forgets_its_anomalies_is_judged_lower(tiny_monitor, series):
    """What the gate's metric is for: a model that expects nothing finds less."""
    model = load(step(tiny_monitor, "student"), threads=1)
    judged = series_to_judge(series, 64)
    assert all(one.labels is not None and one.labels[one.train_end :].any() for one in judged)
    own = judge(model, judged)
    assert own == judge(model, judged)

    class Blind:
        def __init__(self):
            self.fit = model.fit

        def score(self, values, profile):
            return model.score(np.zeros_like(values) + np.nanmean(values, axis=0), profile)

    assert judge(Blind(), judged)["value"] < own["value"] - 0.1


def test_variants_need_windows_to_calibrate_on(tiny_monitor, tmp_path):
    from compress.calibrate import Calibration

    checkpoint = step(tiny_monitor, "student")
    random = np.random.default_rng(0)
    few, wrong = ([random.normal(size=n).astype(np.float32)] * 40 for n in (64, 63))
    for rows, told in (
        (few[:9], "at least 32"),
        (few, "all windows are the same"),
        (wrong, "a window of 64"),
    ):
        with pytest.raises(InputError, match=told):
            export_variant(
                "tflite-full_int8", checkpoint, None, [64], tmp_path / "x", Calibration(rows, [0] * len(rows))
            )
    assert KNOWN["tflite-full_int8"][2] is None and not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: {**arrays, "values": arrays["values"][:, 1:]},
        lambda arrays: {**arrays, "values": arrays["values"].astype(float)},
        lambda arrays: {**arrays, "expected": arrays["expected"] * np.nan},
        lambda arrays: {**arrays, "labels": arrays["labels"][1:]},
        lambda arrays: {key: rows[:0] for key, rows in arrays.items()},
        lambda arrays: {key: rows for key, rows in arrays.items() if key != "values"},
        lambda arrays: {**arrays, "texts": np.array(["x"])},
    ],
)  # fmt: skip
def test_damaged_golden_windows_are_refused(change, detector_bundle, tmp_path):
    shutil.copytree(detector_bundle.resolve(), tmp_path / "copy")
    with np.load(tmp_path / "copy" / "golden.npz") as arrays:
        np.savez(tmp_path / "copy" / "golden.npz", **change(dict(arrays)))
    manifest = open_manifest(tmp_path / "copy")
    seal(tmp_path / "copy", manifest, manifest["files"])
    with pytest.raises(BundleError, match=r"golden\.npz is damaged"):
        open_bundle(tmp_path / "copy").golden()


@pytest.mark.parametrize(
    ("key", "value"), [("window", 1), ("patch", 0), ("max_channels", "9"), ("window", None)]
)
def test_limits_of_a_detector_are_checked(key, value, detector_bundle, tmp_path):
    shutil.copytree(detector_bundle.resolve(), tmp_path / "copy")
    manifest = open_manifest(tmp_path / "copy")
    manifest["limits"][key] = value
    seal(tmp_path / "copy", manifest, manifest["files"])
    with pytest.raises(BundleError, match=f"limits.{key} must be an integer"):
        open_bundle(tmp_path / "copy")


def test_a_device_gets_windows_and_gives_rows(detector_bundle):
    """The very request that goes to a phone, answered here by the runner."""
    from device_bench.quality import plain
    from device_bench.runner import answer_to

    path, inputs = str(detector_bundle), inputs_of(open_bundle(detector_bundle).golden())
    shared = {"bundle": path, "variants": ["onnx-int8"], "texts": json.loads(json.dumps(plain(inputs)))}
    told = answer_to({"do": "answers", "threads": 1, **shared})["variants"]["onnx-int8"]
    assert np.array_equal(np.array(told["ids"], np.float32), np.stack(inputs))
    config = {"threads": 1, "rounds": 5, "seconds": 2.0, "cold_starts": 1, "quick": True, "seed": 0,
              "tokenization": [True, False], "sustained": 0.0}  # fmt: skip
    rows = answer_to({"do": "bench", "labels": None, "config": config, **shared})["rows"]
    assert [row["tokenization"] for row in rows] == [True, False]
    assert rows[0]["parity"]["agreement"] > 0.8 and rows[0]["latency_ms"]["p50"] > 0
    assert Path(path).exists()
