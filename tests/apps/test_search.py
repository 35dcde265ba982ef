"""Search under a budget: a real one on a tiny checkpoint, killed and gone on with; the choice on its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.cli.main import run
from apps.search import SearchConfig, check_search, search
from apps.search_measure import engines_on
from apps.search_page import search_page
from apps.search_pick import Original, Targets, Tried, misses, nearest, pareto, pick, told_miss
from apps.search_space import Space, ladder, said
from runtimes.errors import BudgetError, DeviceError, InputError
from runtimes.load import load
from trainers.data import save_data

CONFIG = SearchConfig(max_drop=0.9, trials=5, variants=("onnx-int8",), epochs=1)
ORIGINAL = Original(0.9, 1000, "onnx-fp32", 10.0, 40_000_000)


def one(number=1, accuracy=0.9, p50=5.0, size=10_000_000, variant="onnx-int8", spread=0.1, **shape):
    speed = ORIGINAL.p50_ms / p50
    around = (speed * (1 - spread), speed * (1 + spread))
    return Tried(number, shape, variant, accuracy, speed, around, p50, size, 1.0, "x.bundle")


@pytest.fixture(scope="module")
def place(tiny_checkpoint, tiny_data, tmp_path_factory):
    """A folder with the data, and a search that was killed in its second trial."""
    folder = tmp_path_factory.mktemp("search")
    save_data(tiny_data, folder / "data")
    command = [
        sys.executable, "-m", "apps.cli", "compress", str(tiny_checkpoint.path),
        "--data", str(folder / "data"), "--out", str(folder / "a.bundle"),
        "--max-drop", "0.9", "--trials", "5", "--variant", "onnx-int8",
        "--epochs", "1",
    ]  # fmt: skip
    log = folder / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stderr=stream, start_new_session=True)
        until = time.monotonic() + 240
        while b"[2/5]" not in log.read_bytes() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        assert process.poll() is None, log.read_text()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return folder


@pytest.fixture(scope="module")
def found(place, tiny_checkpoint):
    """The same search, called again and finished."""
    return search(tiny_checkpoint.path, str(place / "data"), place / "a.bundle", CONFIG)


@pytest.mark.slow
def test_a_killed_search_goes_on(found, place):
    """The first trial was not made again; the killed one was; there is one study."""
    assert "[1/5] as it is, onnx-fp32: accuracy" in (place / "log").read_text()
    names = [row["name"] for row in found["trials"]]
    assert names[:2] == ["as it is, onnx-fp32", "as it is, onnx-int8"] and len(names) == 5
    assert "tokens" in names[2] and "2 layers" in names[4]
    assert [row["number"] for row in found["trials"]] == [0, 2, 3, 4, 5], "1 died with its process"


@pytest.mark.slow
def test_the_pick_is_a_bundle_that_answers(found, place):
    row = next(row for row in found["trials"] if row["number"] == found["pick"])
    assert row["number"] in found["pareto"] and row["misses"] == {} and row["speed_ci95"][0] >= 1 - 1e-9
    assert found["bundle"] == str(place / "a.bundle")
    model = load(place / "a.bundle", threads=1)
    assert model.describe()["variant"] == row["variant"]
    parity = json.loads((place / "a.bundle" / "parity.json").read_text())["variants"][row["variant"]]
    assert parity["sample"]["metric"]["variant"] == found["test"]["accuracy"]
    assert found["test"]["n"] == 120 and found["original"]["n"] == 80, "test for the pick, validation before"


@pytest.mark.slow
def test_figures_are_those_of_the_files(found, place):
    for row in found["trials"]:
        bundle = Path(row["bundle"])
        file = bundle / "variants" / row["variant"] / "model.onnx"
        assert row["size_bytes"] == file.stat().st_size + (bundle / "tokenizer.json").stat().st_size
        parity = json.loads((bundle / "parity.json").read_text())["variants"][row["variant"]]["sample"]
        assert row["accuracy"] == parity["metric"]["variant"] and parity["n"] == 80
        assert row["p50_ms"] == pytest.approx(found["original"]["p50_ms"] / row["speed"])
    assert json.loads((place / "a.search" / "search.json").read_text()) == json.loads(json.dumps(found))


@pytest.mark.slow
def test_another_budget_asks_the_same_trials(found, place, tiny_checkpoint, capsys):
    """Nothing is tried again; what cannot be met ends with 4, the best found, and no bundle."""
    out = place / "a.bundle"
    shutil.rmtree(out)
    argv = ["compress", str(tiny_checkpoint.path), "--data", str(place / "data"), "--out", str(out)]
    argv += ["--trials", "5", "--variant", "onnx-int8", "--epochs", "1", "--max-drop", "0.9"]
    assert run([*argv, "--target-size-mb", "0.01"]) == 4
    told = capsys.readouterr().err
    assert "/5]" not in told and "MB over --target-size-mb" in told and told.count("edgewise:") == 1
    bundle = told.split("its bundle lies at ")[1].split(";")[0]
    assert load(bundle, threads=1)("wheat") and not out.exists()
    assert run([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bundle"] == str(out)


@pytest.mark.slow
def test_slower_than_fp32_is_never_picked(found, place, tiny_checkpoint, tmp_path, monkeypatch):
    """All trials, smaller ones too, are told to be slower: the original's fp32 stays."""
    shutil.copytree(place / "a.search", tmp_path / "b.search", ignore=shutil.ignore_patterns("study.db"))

    def slower(bundles, texts, on):
        fp32, *rest = bundles
        times = {fp32: {"p50_ms": 1.0, "speed": 1.0, "ci95": [1.0, 1.0]}}
        return times | {name: {"p50_ms": 1.1, "speed": 0.91, "ci95": [0.89, 0.93]} for name in rest}

    monkeypatch.setattr("apps.search.measure", slower)
    config = replace(CONFIG, trials=3)
    result = search(tiny_checkpoint.path, str(place / "data"), tmp_path / "b.bundle", config)
    assert result["pick"] == 0 and result["trials"][0]["variant"] == "onnx-fp32"
    with pytest.raises(BudgetError, match="not surely faster than fp32|MB over"):
        size = result["trials"][0]["size_bytes"] / 1e6 - 0.001
        config = replace(config, target_size_mb=size)
        search(tiny_checkpoint.path, str(place / "data"), tmp_path / "b.bundle", config)


@pytest.mark.slow
def test_machines_share_one_study(found, place, tiny_checkpoint, tmp_path):
    """Two folders, as on two machines: the second goes on where the first stopped, with its own files."""
    config = replace(CONFIG, storage=f"sqlite:///{tmp_path / 'shared.db'}")
    results = []
    for machine, trials in (("one", 1), ("two", 2)):
        work = tmp_path / machine / "b.search"
        shutil.copytree(place / "a.search", work, ignore=shutil.ignore_patterns("study.db"))
        out = tmp_path / machine / "b.bundle"
        result = search(tiny_checkpoint.path, str(place / "data"), out, replace(config, trials=trials))
        results.append(result)
        assert not (work / "study.db").exists() and out.is_dir()
    one, two = (result["trials"] for result in results)
    assert [row["number"] for row in two] == [0, 1] and two[0]["speed"] == one[0]["speed"]
    assert "/one/" in two[0]["bundle"] and "/two/" in two[1]["bundle"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("no url", "no database URL"),
        ("sqlite:////nowhere/at/all/study.db", "cannot be used as a study"),
        ("postgresql+nodriver://me:secret@localhost/x", "cannot be used as a study"),
    ],
)
def test_a_bad_storage_is_one_line(storage, said, place, tiny_checkpoint, tmp_path):
    with pytest.raises(InputError, match=said) as error:
        config = replace(CONFIG, storage=storage)
        search(tiny_checkpoint.path, str(place / "data"), tmp_path / "c.bundle", config)
    assert "\n" not in str(error.value) and "secret" not in str(error.value)


@pytest.mark.slow
def test_a_study_that_is_no_study(place, tiny_checkpoint, tmp_path):
    (tmp_path / "d.search").mkdir()
    (tmp_path / "d.search" / "study.db").write_bytes(b"no database" * 1000)
    with pytest.raises(InputError, match="cannot be used as a study"):
        search(tiny_checkpoint.path, str(place / "data"), tmp_path / "d.bundle", CONFIG)


def test_a_folder_of_others_is_left_alone(tmp_path):
    (tmp_path / "e.search").mkdir()
    (tmp_path / "e.search" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="choose another --out"):
        search(tmp_path, "rows.csv", tmp_path / "e.bundle", CONFIG)
    with pytest.raises(InputError, match=r"cut that down to a \.zip"):
        search(tmp_path, "rows.csv", tmp_path / "e.zip", CONFIG)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"max_drop": -0.1}, InputError), ({"max_drop": float("nan")}, InputError),
        ({"max_drop": 2}, InputError), ({"trials": 0}, InputError),
        ({"target_latency_ms": 0.0}, InputError), ({"target_size_mb": float("inf")}, InputError),
        ({"variants": ("onnx-int3",)}, InputError),
    ],
)  # fmt: skip
def test_bad_values(change, error):
    with pytest.raises(error):
        check_search(replace(CONFIG, **change))


def test_options_that_do_not_go_together(capsys):
    argv = ["compress", "x", "--data", "y", "--out", "z"]
    assert run([*argv, "--max-drop", "0.01", "--layers", "2"]) == 2
    assert run([*argv, "--target-size-mb", "3"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert "--max-drop does not go with what makes it smaller" in told[0] and "add --max-drop" in told[1]
    assert len(told) == 2


def test_a_device_out_of_reach_is_exit_5():
    assert set(engines_on("local")) >= {"onnx", "litert"}
    with pytest.raises(DeviceError, match=r"nobody@127\.0\.0\.1:9"):
        engines_on("nobody@127.0.0.1:9")


TRIED = st.lists(
    st.builds(
        one,
        accuracy=st.sampled_from([0.7, 0.88, 0.89, 0.9]),
        p50=st.sampled_from([1.0, 2.0, 9.5, 20.0]),
        size=st.sampled_from([1_000_000, 2_000_000, 50_000_000]),
    ),
    max_size=8,
).map(lambda tried: [replace(t, number=n) for n, t in enumerate(tried)])


@settings(deadline=None)
@given(TRIED)
def test_the_pareto_set(tried):
    """Nothing in it is beaten, and what is left out is beaten by something in it."""
    best = pareto(tried)

    def beats(a, b):
        (x, y, z), (u, v, w) = a.figures, b.figures
        return x >= u and y <= v and z <= w and a.figures != b.figures

    assert not any(beats(a, b) for a in tried for b in best)
    assert all(t in best or any(beats(b, t) for b in best) for t in tried)


@settings(deadline=None)
@given(TRIED, st.sampled_from([None, 3.0]), st.sampled_from([None, 1.5]))
def test_the_pick_keeps_everything(tried, latency, size):
    targets = Targets(0.015, latency, size)
    chosen = pick(tried, targets, ORIGINAL)
    fits = [
        t for t in tried
        if t.accuracy >= 0.885 and t.speed_ci95[0] >= 1
        and t.p50_ms <= (latency or 1e9) and t.size_bytes <= (size or 1e9) * 1e6
    ]  # fmt: skip
    assert (chosen is None) == (not fits)
    if chosen is not None:
        assert chosen in fits and chosen.figures in [t.figures for t in pareto(fits)]
        if latency and not size:
            assert chosen.size_bytes == min(t.size_bytes for t in fits)
        if size and not latency:
            fastest = min(t.p50_ms for t in fits)
            assert chosen.p50_ms == fastest
            assert chosen.size_bytes == min(t.size_bytes for t in fits if t.p50_ms == fastest)


def test_speeds_that_cannot_be_told_apart_are_a_tie():
    """Fewer tokens cost no time: the larger vocabulary must not win by noise."""
    tried = [
        one(1, p50=4.9, size=20_000_000),
        one(2, p50=5.2, size=9_000_000, vocabulary=9000),
        one(3, p50=9.0),
    ]
    assert pick(tried, Targets(0.01, None, 30.0), ORIGINAL).number == 2
    apart = [replace(t, speed_ci95=(t.speed, t.speed)) for t in tried]
    assert pick(apart, Targets(0.01, None, 30.0), ORIGINAL).number == 1


def test_what_is_missed_is_told():
    tried = [
        Tried(0, {}, "onnx-int4", why="no"),
        one(1, accuracy=0.80),
        one(2, accuracy=0.885, size=3_000_000, layers=3),
    ]
    targets = Targets(0.01, None, 2.0)
    best = nearest(tried, targets, ORIGINAL)
    assert best == tried[2] and pick(tried, targets, ORIGINAL) is None
    assert told_miss(best, targets, ORIGINAL) == (
        "drop 0.0150, 0.0050 over the 0.01 of --max-drop; 3 MB, 1 MB over --target-size-mb"
    )
    assert "not surely faster than fp32" in told_miss(one(3, p50=9.5), Targets(0.1), ORIGINAL)
    assert misses(one(4, accuracy=0.89), Targets(0.01), ORIGINAL) == {}, "0.9 - 0.89 is a hair over 0.01"
    assert nearest(tried[:1], targets, ORIGINAL) is None


def test_the_ladder_starts_with_what_does_not_train():
    space = Space(("onnx-fp32", "onnx-int8", "tflite-fp32"), (1000, 30_000), 6, 12, 32, 1536)
    rungs = ladder(space, "onnx-fp32", 24)
    trains = [rung["shape"] != "whole" for rung in rungs]
    assert trains == sorted(trains) and any(trains)
    assert rungs[0] == {"trim": False, "shape": "whole", "variant": "onnx-fp32"}
    assert [rung.get("variant") for rung in rungs[:2]] == ["onnx-fp32", "onnx-int8"]
    bare = ladder(Space(("onnx-int8",)), "onnx-fp32", 4)
    assert bare == [{"shape": "whole", "variant": name} for name in ("onnx-fp32", "onnx-int8")]


def test_shapes_in_words():
    assert said({}) == "as it is"
    assert said({"vocabulary": 9000, "layers": 2, "hidden_size": 96}) == "9,000 tokens, 2 layers, hidden 96"


def result_of(tried, chosen):
    row = {"budget": {"max_drop": 0.01, "latency_ms": 3.0, "size_mb": None}, "original": ORIGINAL.__dict__}
    trials = [{**t.__dict__, "name": t.name, "misses": {} if t.figures else None} for t in tried]
    return {**row, "pick": chosen, "pareto": [0], "test": None, "trials": trials}


def test_the_page_escapes_and_tells_failures(tmp_path):
    tried = [one(0), Tried(1, {}, "onnx-int8", why="<script>alert(1)</script> & more")]
    page = search_page(result_of(tried, 0), tmp_path / "p.html", "a & b").read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page and "a &amp; b" in page
    assert page.count("<tr data-key") == 2 and "Content-Security-Policy" in page
    nothing = search_page(result_of(tried[1:], None), tmp_path / "p.html", "x").read_text()
    assert "No trial keeps the budget" in nothing and "<svg" not in nothing


@pytest.mark.browser
def test_the_page_in_a_browser(tmp_path):
    """Nothing runs over the edge, long reasons wrap, the table sorts, the page's own policy holds."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    shape = {"vocabulary": 9000, "layers": 2, "hidden_size": 96, "intermediate_size": 384}
    tried = [one(0, variant="tflite-dynamic_wi8_afp32", **shape), one(1, accuracy=0.95, p50=2.0)]
    tried.append(Tried(2, {}, "onnx-int4", why="a long reason, " * 30))
    out = search_page(result_of(tried, 0), tmp_path / "p.html", "a rather long title of a search in full")
    errors: list[str] = []
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("console", lambda message: message.type == "error" and errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        for width in (320, 390, 768, 1280):
            page.set_viewport_size({"width": width, "height": 844})
            page.goto(out.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            reason = page.locator("td.why").last.bounding_box()
            assert width == 768 or reason["x"] + reason["width"] <= width, (
                "at 768 the table scrolls in its card"
            )
        page.get_by_role("button", name="Accuracy").click()
        assert page.locator("tbody tr .name").first.inner_text().startswith("1:")
        browser.close()
    assert errors == []
