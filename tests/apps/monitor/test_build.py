"""A detector from a CSV to a measured bundle, by the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

import edgewise
from apps.cli.main import run
from runtimes.bundle import open_bundle


def step(folder, name):
    return next((folder / "runs" / "tiny").glob(f"{name}-*"))


def test_a_build_gives_a_bundle_without_a_tokenizer(detector_bundle):
    bundle = open_bundle(detector_bundle)
    assert bundle.task == "anomaly-detection" and "tokenizer.json" not in bundle.manifest["files"]
    assert bundle.manifest["signature"]["outputs"]["expected"]["shape"] == ["batch", 72]
    assert bundle.limits["window"] == 64 and bundle.limits["patch"] == 8
    golden = bundle.golden()
    assert golden["values"].shape[1:] == (64,) and golden["expected"].shape[1:] == (72,)
    assert {step["step"] for step in bundle.manifest["lineage"]} == {"train_detector", "distil_detector"}


def test_the_gate_has_measured_whole_series(detector_bundle):
    parity = json.loads(open_bundle(detector_bundle).read("parity.json"))
    for name, figures in parity["variants"].items():
        metric = figures["sample"]["metric"]
        assert metric["name"] == "vus_pr" and metric["n"] > 500
        assert metric["checkpoint"] - metric["variant"] <= parity["budget"]["max_drop"], name
        assert metric["variant"] > 0.2  # a random score gives about the share of anomalies, 0.1
    card = open_bundle(detector_bundle).read("README.md").decode()
    assert "windows of 64 points, forecasts of 8" in card and "vus_pr" in card


def test_the_bench_tells_points(tiny_monitor):
    rows = [json.loads(line) for line in step(tiny_monitor, "bench").read_text().splitlines()]
    assert {row["variant"] for row in rows} >= {"pytorch-fp32", "onnx-int8", "tflite-full_int8"}
    for row in rows:
        assert row["sample"] == {"n": row["sample"]["n"], "chars_p50": 64, "chars_max": 64, "unit": "points"}
        assert row["tokenizer_bytes"] is None and row["metric"]["name"] == "vus_pr"
        assert "a point takes p50 / 8" in row["note"] and "texts have" not in row["note"]


def test_a_second_build_makes_nothing_again(tiny_monitor, capsys):
    assert run(["build", str(tiny_monitor / "tiny.toml"), "--runs", str(tiny_monitor / "runs")]) == 0
    told = capsys.readouterr()
    assert "…" not in told.err and told.err.count("reused") == 11
    assert "tflite-full_int8" in told.out


def test_the_same_seed_gives_the_same_model(tiny_monitor, tmp_path):
    recipe, runs = str(tiny_monitor / "tiny.toml"), tmp_path / "runs"
    assert run(["build", recipe, "--runs", str(runs), "--until", "student"]) == 0
    made = [step(folder, "student") / "checkpoint.json" for folder in (tmp_path, tiny_monitor)]
    assert json.loads(made[0].read_text())["digest"] == json.loads(made[1].read_text())["digest"]


def test_train_goes_on_to_the_slim_detector(tiny_monitor, capsys):
    recipe, runs = str(tiny_monitor / "tiny.toml"), str(tiny_monitor / "runs")
    smaller = ["--slim.keep", "0.5", "--slim.steps", "2"]
    assert run(["train", recipe, "--runs", runs, *smaller, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    meta = json.loads((Path(made["slim"]) / "checkpoint.json").read_text())
    assert meta["metrics"]["kind"] == "pruned"
    assert run(["train", recipe, "--runs", runs, *smaller]) == 0
    assert f"slim     {made['slim']}" in capsys.readouterr().out


def test_an_app_loads_it(detector_bundle, tiny_monitor):
    points = np.loadtxt(tiny_monitor / "tiny.csv", delimiter=",", skiprows=1)[:, 1:]
    model = edgewise.load(detector_bundle, variant="tflite-full_int8", threads=1)
    profile = model.fit(points[:1200])
    odd = points[1200:].copy()
    odd[600:620, 0] += 8
    scores = model.score(odd, profile)
    assert np.nanargmax(scores.score) in range(600, 640) and scores.channels[605, 0] > 0.5
    assert model.describe()["precision"] == "full_int8"


def test_check_bench_and_export_by_hand(tiny_monitor, detector_bundle, tmp_path, capsys):
    assert run(["check", str(detector_bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["variants"]["onnx-fp32"]["golden"]["agreement"] == 1.0
    data, rows = str(tiny_monitor / "tiny.csv"), tmp_path / "rows.jsonl"
    options = ["--data", data, "--variant", "onnx-int8", "--quick", "--out", str(rows)]
    assert run(["bench", str(detector_bundle), *options]) == 0
    assert json.loads(rows.read_text().splitlines()[0])["parity"]["agreement"] > 0.8
    small = tmp_path / "small.bundle"
    assert run(["export", str(detector_bundle), "--variant", "onnx-int8", "--out", str(small)]) == 0
    assert list(open_bundle(small).variants) == ["onnx-int8"]
    again, checkpoint = tmp_path / "again.bundle", str(step(tiny_monitor, "student"))
    assert run(["export", checkpoint, "--data", data, "--variant", "onnx-fp32", "--out", str(again)]) == 0
    assert edgewise.load(again, threads=1).limits["window"] == 64


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "BUNDLE", "a text"], "a detector reads numbers; run it with --stream"),
        (["run", "BUNDLE", "--file", "x.csv"], "go with --stream"),
        (["run", "BUNDLE", "--stream", "--file", "x.csv", "--machine"], "watch one of them"),
        (["run", "BUNDLE", "--stream", "--file", "x.csv"], "x.csv: No such file"),
        (["run", "BUNDLE", "--stream", "--file", "x.parquet"], "reads CSV or JSON lines"),
        (["run", "BUNDLE", "--stream", "--learn", "5", "--machine"], "give 192 to"),
        (
            ["compress", "STUDENT", "--data", "DATA", "--keep", "0.5", "--out", "OUT"],
            "made smaller by [student] and [slim]",
        ),
        (["compress", "STUDENT", "--data", "DATA", "--analyse"], "this takes text classifiers only"),
        (["build", "RECIPE", "--distil.epochs", "1"], "a detector is made smaller by [student] and [slim]"),
        (["build", "RECIPE", "--student.window", "32"], "student.window = 32: must be the teacher's, 64"),
        (["build", "RECIPE", "--detector.window", "65"], "multiple of patch"),
        (["build", "RECIPE", "--export.variants", '["executorch-int8"]'], "ONNX Runtime and LiteRT"),
        (["train", "RECIPE", "--explore"], "apps.monitor.explore"),
        (["train", "RECIPE", "--from", "STUDENT", "--data", "DATA"], "trained anew"),
    ],
)
def test_what_does_not_serve_is_one_line(words, told, tiny_monitor, detector_bundle, tmp_path, capsys):
    places = {"BUNDLE": detector_bundle, "STUDENT": step(tiny_monitor, "student"), "OUT": tmp_path / "out",
              "DATA": tiny_monitor / "tiny.csv", "RECIPE": tiny_monitor / "tiny.toml"}  # fmt: skip
    assert run([str(places.get(word, word)) for word in words]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert told in said[-1] and said[-1].startswith("edgewise: ")
