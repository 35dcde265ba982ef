"""`edgewise bench` and `edgewise check` on a device, and rows that go into the bundle."""

import json
import shutil
import signal
import threading
import time

import pytest
from bench_fakes import row

from apps import measuring, summary
from apps.cli.main import run
from device_bench.devices.local import follow
from device_bench.rows import open_rows
from export.gate import check_answers
from runtimes.bundle import open_bundle
from runtimes.errors import GateError, InputError


def test_check_on_a_device_is_the_same_gate(tiny_bundle, capsys):
    assert run(["check", str(tiny_bundle), "--on", "local", "--json"]) == 0
    there = json.loads(capsys.readouterr().out)["local"]["variants"]
    assert run(["check", str(tiny_bundle), "--json"]) == 0
    here = json.loads(capsys.readouterr().out)["variants"]
    assert there.keys() == here.keys()
    for name in here:
        assert there[name]["golden"] == pytest.approx(here[name]["golden"], abs=1e-6)


def test_answers_of_another_model_fail_the_gate(tiny_bundle):
    bundle = open_bundle(tiny_bundle)
    golden = bundle.golden()
    ids = [row[mask == 1].tolist() for row, mask in
           zip(golden["input_ids"], golden["attention_mask"], strict=True)]  # fmt: skip
    right = {"ids": ids, "outputs": golden["logits"].tolist()}
    assert check_answers(bundle, {"onnx-fp32": right})["variants"]["onnx-fp32"]["golden"]["max_abs"] == 0
    with pytest.raises(GateError, match="not the same model there"):
        check_answers(bundle, {"onnx-fp32": {**right, "outputs": (-golden["logits"]).tolist()}})
    with pytest.raises(GateError, match="golden text 0 tokenizes otherwise"):
        check_answers(bundle, {"onnx-fp32": {**right, "ids": [[1], *ids[1:]]}})
    with pytest.raises(GateError, match="not the same model"):
        check_answers(bundle, {"onnx-fp32": {**right, "outputs": (golden["logits"] * float("nan")).tolist()}})


@pytest.mark.parametrize("change", [
    {"ids": []}, {"ids": None}, {"outputs": [[1.0], [1.0, 2.0]]}, {"outputs": "x"}, {"outputs": []},
    {"ids": [["x"]] * 40},
])  # fmt: skip
def test_answers_that_prove_nothing_fail_the_gate(tiny_bundle, change):
    bundle = open_bundle(tiny_bundle)
    golden = bundle.golden()
    ids = [row[mask == 1].tolist() for row, mask in
           zip(golden["input_ids"], golden["attention_mask"], strict=True)]  # fmt: skip
    told = {"ids": ids, "outputs": golden["logits"].tolist(), **change}
    with pytest.raises(GateError):
        check_answers(bundle, {"onnx-fp32": told})
    with pytest.raises(GateError, match="golden texts were answered there"):
        check_answers(bundle, {"onnx-nothing": {**told, "ids": ids}})


def test_rows_go_into_the_bundle(tiny_bundle, tmp_path):
    bundle, out = tmp_path / "b", tmp_path / "rows.jsonl"
    shutil.copytree(tiny_bundle, bundle)
    command = ["bench", str(bundle), "--variant", "onnx-int8", "--variant", "onnx-fp32", "--quick", "--add"]
    assert run([*command, "--out", str(out)]) == 0
    (kept,) = (bundle / "bench").glob("*.json")
    assert [one["variant"] for one in open_rows(kept)] == [one["variant"] for one in open_rows(out)]
    assert len({one["variant"] for one in open_rows(kept) if one["default"]}) == 1
    open_bundle(bundle)


def test_a_file_a_device_with_its_own_default(tiny_bundle, tmp_path):
    bundle = tmp_path / "b"
    shutil.copytree(tiny_bundle, bundle)
    emulated = row(latency_ms=None, emulated=True)
    rows = [row("a", 2.0, default=True), row("b", 1.0), emulated, row(simulated_profile="pi-zero")]
    names = measuring.keep(bundle, rows)
    assert names == ["bench/board-5.json", "bench/board-5-emulated.json", "bench/board-5-pi-zero.json"]
    assert [one["default"] for one in open_rows(bundle / names[0])] == [False, True]


def test_the_table_tells_devices_apart_and_no_emulated_times():
    lines = summary.table([row(entry="a"), row(entry="a", latency_ms=None, emulated=True)]).splitlines()
    assert lines[0].split()[:2] == ["device", "model"]
    assert "Board 5 (emulated)" in lines[2] and "not told" in lines[2] and "99.8%" in lines[2]


def test_a_remark_stands_once():
    rows = [
        row(entry="a", note="one; two"),
        row(entry="b", note="one"),
        row(entry="c", tokenization=False, note="x"),
    ]
    assert summary.notes(rows) == "- one (a; b)\n- two (a)\n- x (c, tokens ready)"


def test_two_devices_of_one_name_are_told_apart():
    rows = measuring.told_apart([[row(), row()], [row()], [row(device={**row()["device"], "name": "Other"})]])
    assert [one["device"]["name"] for one in rows] == ["Board 5", "Board 5", "Board 5 (2)", "Other"]


def test_ctrl_c_ends_what_runs_on_several_devices():
    ended = []

    def work(address):
        try:
            follow(["sleep", "60"], 100, lambda line: None, address)
        finally:
            ended.append(address)

    main = threading.main_thread().ident
    threading.Timer(1.0, signal.pthread_kill, (main, signal.SIGINT)).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        measuring._at_once(work, ["local", "pi@host"])
    assert sorted(ended) == ["local", "pi@host"] and time.monotonic() - started < 30


def test_bad_devices(tiny_bundle, capsys):
    assert run(["bench", str(tiny_bundle), "--on", "-oProxyCommand=x"]) == 2
    assert run(["check", str(tiny_bundle), "--on", "local", "--on", "local"]) == 2
    assert "named twice" in capsys.readouterr().err
    with pytest.raises(InputError, match="--reference runs PyTorch"):
        measuring.measure_bundle(tiny_bundle, tiny_bundle, None, None, measuring.BenchConfig(), ["pi@host"])


def test_one_dead_device_takes_nothing_from_the_others(tiny_bundle, tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    on = ["--on", "local", "--on", "nobody@127.0.0.1:9"]
    argv = ["bench", str(tiny_bundle), "--variant", "onnx-int8", "--quick", "--out", str(out), *on]
    assert run(argv) == 5
    told = capsys.readouterr()
    assert "127.0.0.1" in told.err.splitlines()[-1] and "onnx-int8" in told.out
    assert {one["variant"] for one in open_rows(out)} == {"onnx-int8"}
    assert run(["check", str(tiny_bundle), "--json", *on]) == 5
    assert set(json.loads(capsys.readouterr().out)) == {"local"}


@pytest.mark.parametrize("target", ["folder", "/dev/full", "/proc/nowhere/rows.jsonl"])
def test_a_target_that_cannot_be_written_is_refused_at_once(
    tiny_bundle, tmp_path, capsys, target, monkeypatch
):
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(measuring, "bench", lambda *args: pytest.fail("measured first"))
    assert run(["bench", str(tiny_bundle), "--out", str(tmp_path / target)]) == 2
    (tmp_path / "b.zip").write_bytes(b"")
    assert run(["bench", str(tmp_path / "b.zip"), "--add", "--out", str(tmp_path / "x")]) == 2
    assert "--add writes into a bundle folder" in capsys.readouterr().err
