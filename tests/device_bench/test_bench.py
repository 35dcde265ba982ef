import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_fakes import FakeModel

from device_bench import bench as module
from device_bench import cold, machine, meters, quality
from device_bench.bench import BenchConfig, BenchEntry, bench
from device_bench.rows import EXTRA_KEYS, KEYS, check_row
from runtimes.errors import BundleError, EngineError, InputError

SHORT = BenchConfig(rounds=8, seconds=5.0, cold_starts=1)
TEXTS = ["a", "bb", "ccc", "dd"]


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Entries by path name; a fake is opened for each, and no process is started."""
    models: dict[str, Any] = {"edge": FakeModel(), "teacher": FakeModel("torch", "pytorch-fp32")}

    def open_fake(name: str, entry: BenchEntry, threads: int) -> Any:
        model = models[entry.path.name]
        torch = model.engine == "torch"
        texts = np.array(TEXTS)
        golden = None if torch else {"texts": texts, "logits": FakeModel().logits(TEXTS)}
        size = 8000 if torch else 1000
        return module._Opened(model, model.describe(), size, 10, None if torch else True, golden)

    monkeypatch.setattr(module, "_open", open_fake)
    monkeypatch.setattr(cold, "cold_start", lambda *_, **__: cold.ColdStart(12.0, 34.0, 1, 30.0, 34.0))
    nothing = (None, "no meter on this machine")
    monkeypatch.setattr(meters, "find", lambda *_, **__: nothing)
    return models


def entries(*names: str) -> dict[str, BenchEntry]:
    return {name: BenchEntry(Path(name)) for name in names}


def test_rows_follow_the_schema(fakes: dict[str, Any]) -> None:
    rows = bench(entries("edge", "teacher"), TEXTS, [0, 1, 0, 0], SHORT)
    assert [(row["entry"], row["tokenization"]) for row in rows] == [
        ("edge", True), ("edge", False), ("teacher", True), ("teacher", False),
    ]  # fmt: skip
    for row in rows:
        assert list(row) == [*KEYS, *EXTRA_KEYS]
        check_row(row, "row")
        assert row["n"] == 8
        assert row["metric"] == {"name": "accuracy", "value": 0.75, "n": 4}
        assert (row["cold_start_ms"], row["peak_rss_mb"]) == (12.0, 34.0)
        assert row["sample"] == {"n": 4, "chars_p50": 2, "chars_max": 3}
        assert row["ratio_to"]["entry"] == "teacher"
        assert row["rss_mb"] == {"load": 30.0, "run": 34.0}
        assert row["rerun"]["n"] == 2
        assert 0 < row["overhead_share"] == row["overhead_ms"] / row["latency_ms"]["p50"]
        assert row["energy_mj"] is row["energy"] is row["sustained"] is row["simulated_profile"] is None
        assert "energy: no meter on this machine" in row["note"]
        assert "cool-down: " in row["note"]
    assert len({row["started"] for row in rows}) == 1
    assert rows[0]["ratio_to"]["size"] == 8.0
    assert rows[2]["ratio_to"]["speed"] == 1.0
    assert rows[0]["parity"] == {"max_abs": 0.0, "cosine": 1.0, "agreement": 1.0}
    assert rows[2]["parity"] is None
    assert "this is the checkpoint itself" in rows[2]["note"]
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_no_labels_no_reference(fakes: dict[str, Any]) -> None:
    (row,) = bench(entries("edge"), TEXTS, None, replace(SHORT, tokenization=(True,)))
    assert row["metric"] is row["ratio_to"] is None
    assert "the texts have no labels" in row["note"]


def test_quick_is_shorter_and_says_so(fakes: dict[str, Any]) -> None:
    row = bench(entries("edge"), TEXTS, None, BenchConfig(quick=True))[0]
    assert row["quick"] is True
    assert row["n"] <= 200
    assert row["note"].startswith(f"quick: {row['n']} rounds")
    assert bench(entries("edge"), TEXTS, None, SHORT)[0]["quick"] is False


def test_energy_and_a_sustained_run_stand_in_the_row_of_whole_answers(
    fakes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    start, worked = time.monotonic(), [0]
    meter = meters.Meter(
        "board", lambda: time.monotonic() - start + worked[0] * 1e-3, counts=True, seconds=1.1
    )
    monkeypatch.setattr(meters, "find", lambda *_, **__: (meter, ""))

    class Working(FakeModel):
        def __call__(self, text: str) -> str:
            time.sleep(0.001)
            worked[0] += 1
            return "sports"

    fakes["edge"] = Working()
    both = bench(entries("edge"), TEXTS, None, replace(SHORT, sustained=0.002))
    assert both[0]["energy_source"] == "board"
    assert both[0]["energy_mj"] == pytest.approx(1.0, rel=0.05)
    assert both[0]["energy"]["run_mw"] > both[0]["energy"]["idle_mw"]
    assert both[0]["sustained"]["minutes"] == 0.002
    assert "sustained: 0.002 min" in both[0]["note"]
    assert both[1]["energy_mj"] is both[1]["sustained"] is None
    assert "energy: see the row with tokenization" in both[1]["note"]
    (alone,) = bench(entries("edge"), TEXTS, None, replace(SHORT, sustained=0.002, tokenization=(False,)))
    assert alone["sustained"]["minutes"] == 0.002
    for row in (*both, alone):
        check_row(row, "row")


def test_a_simulated_machine_has_no_energy(fakes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "find", lambda *_, **__: pytest.fail("asked for a meter"))
    row = bench(entries("edge"), TEXTS, None, SHORT, profile="pi4")[0]
    assert (row["simulated_profile"], row["energy_mj"]) == ("pi4", None)
    assert "what this machine draws says nothing of the simulated one" in row["note"]


def test_an_unsteady_machine_is_told_in_the_row(
    fakes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    told, loops = module.measure.interleave, []

    def slower(*args: Any, **more: Any) -> Any:
        timings = told(*args, **more)
        loops.append(timings)
        scale = len(loops) * 10**9  # 1 s in the first loop, 2 s in the second
        return replace(timings, ns={name: np.full_like(ns, scale) for name, ns in timings.ns.items()})

    monkeypatch.setattr(module.measure, "interleave", slower)
    row = bench(entries("edge"), TEXTS, None, SHORT)[0]
    assert row["rerun"] == {"p50": 2000.0, "difference": 1.0, "n": 2}
    assert "rerun: p50 +100.0% in a second loop on the same texts" in row["note"]


def test_emulated_times_are_not_reported(fakes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "emulated", lambda: True)
    row = bench(entries("edge"), TEXTS, None, replace(SHORT, sustained=1.0))[0]
    assert row["emulated"] is True
    assert row["latency_ms"] is row["cold_start_ms"] is row["ratio_to"] is row["overhead_ms"] is None
    assert row["rerun"] is row["rss_mb"] is row["sustained"] is row["energy_mj"] is None
    assert row["parity"]
    assert row["note"].startswith("emulated: times and memory are not reported")
    check_row(row, "row")


def test_times_through_a_pipe_are_not_reported(
    fakes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = FakeModel.describe
    monkeypatch.setattr(FakeModel, "describe", lambda self: {**told(self), "elsewhere": "/some/python"})
    row = bench(entries("edge"), TEXTS, None, SHORT)[0]
    assert row["latency_ms"] is row["cold_start_ms"] is row["peak_rss_mb"] is row["ratio_to"] is None
    assert row["parity"] and "behind a pipe" in row["note"]
    check_row(row, "row")


@pytest.mark.parametrize(
    ("names", "texts", "labels", "config", "message"),
    [
        ((), TEXTS, None, SHORT, "nothing to measure"),
        (("edge",), [], None, SHORT, "no texts"),
        (("edge",), TEXTS, [0], SHORT, "4 texts but 1 labels"),
        (("edge",), TEXTS, [0, 1, 2, 0], SHORT, r"label 2 is not in 0\.\.1"),
        (("edge",), TEXTS, None, replace(SHORT, rounds=0), "must not be zero"),
        (("edge",), TEXTS, None, replace(SHORT, tokenization=()), "must not be zero or empty"),
        (("edge",), TEXTS, None, replace(SHORT, sustained=-1), "sustained takes 0 to 1440 minutes"),
        (("edge",), TEXTS, None, replace(SHORT, sustained=float("nan")), "sustained takes 0 to 1440"),
    ],
)
def test_bad_input(
    fakes: dict[str, Any], names: Any, texts: Any, labels: Any, config: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        bench(entries(*names), texts, labels, config)


def test_two_tasks_in_one_run_are_refused(fakes: dict[str, Any]) -> None:
    fakes["other"] = FakeModel(labels=["x", "y"])
    with pytest.raises(InputError, match="other and edge have different labels"):
        bench(entries("edge", "other"), TEXTS, None, SHORT)


def test_an_entry_that_fails_is_an_error_with_its_name(fakes: dict[str, Any]) -> None:
    class Broken(FakeModel):
        def run(self, prepared: list[str]) -> np.ndarray:
            raise RuntimeError("bad kernel\nmore")

    fakes["broken"] = Broken()
    with pytest.raises(
        EngineError, match=r"^broken without tokenization: .*RuntimeError: bad kernel"
    ) as caught:
        bench(entries("edge", "broken"), TEXTS, None, SHORT)
    assert "\n" not in str(caught.value)


def test_logits_that_are_not_finite_are_an_error(fakes: dict[str, Any]) -> None:
    class Nan(FakeModel):
        def logits(self, texts: list[str]) -> np.ndarray:
            return np.where([[len(text) == 2] for text in texts], np.nan, np.ones((len(texts), 2)))

    fakes["nan"] = Nan()
    with pytest.raises(EngineError, match=r"^nan: outputs of text 2 are not finite"):
        bench(entries("nan"), TEXTS, [0, 1, 0, 1], SHORT)


def test_parity_of_a_known_case() -> None:
    golden = [np.array([1.0, 0.0]), np.array([0.0, 2.0])]
    got = quality.parity(FakeModel(), ["a", "b"], [np.array([0.0, 1.0]), np.array([0.0, 2.5])], golden)
    assert got == {"max_abs": 1.0, "cosine": pytest.approx(5 / (7.25 * 5) ** 0.5), "agreement": 0.5}
    with pytest.raises(EngineError, match="shape"):
        quality.parity(FakeModel(), ["a", "b"], list(np.ones((2, 3))), golden)


def test_a_real_bundle_end_to_end(small_bundle: Path) -> None:
    rows = bench({"small": BenchEntry(small_bundle)}, ["a goal", "the vote"], [0, 1], SHORT)
    row = rows[0]
    assert (row["bundle"], row["variant"], row["engine"]) == ("small", "onnx-fp32", "onnxruntime")
    assert row["default"] is True
    assert row["size_bytes"] == (small_bundle / "variants/onnx-fp32/model.onnx").stat().st_size
    assert row["parity"]["max_abs"] < 1e-5
    assert row["cold_start_ms"] > row["latency_ms"]["p50"] > row["overhead_ms"]
    assert rows[1]["tokenization"] is False


def test_a_missing_bundle_and_variant(small_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"^gone: .*no such bundle"):
        bench({"gone": BenchEntry(tmp_path / "no.bundle")}, TEXTS, None, SHORT)
    with pytest.raises(EngineError, match=r"^int4: .*no variant 'onnx-int4'"):
        bench({"int4": BenchEntry(small_bundle, variant="onnx-int4")}, TEXTS, None, SHORT)


@pytest.mark.slow
def test_the_checkpoint_is_the_reference(small_bundle: Path, small_checkpoint: Path) -> None:
    both = {"teacher": BenchEntry(small_checkpoint, engine="torch"), "small": BenchEntry(small_bundle)}
    rows = bench(both, ["a goal", "the vote"], [0, 1], SHORT)
    teacher, small = rows[0], rows[2]
    assert (teacher["engine"], teacher["variant"], teacher["parity"]) == ("torch", "pytorch-fp32", None)
    assert teacher["size_bytes"] == (small_checkpoint / "model.safetensors").stat().st_size
    assert teacher["peak_rss_mb"] > small["peak_rss_mb"] + 50  # torch is in the one process only
    assert teacher["cold_start_ms"] > small["cold_start_ms"]
    assert small["ratio_to"]["entry"] == "teacher"
    assert small["ratio_to"]["speed"] == pytest.approx(
        teacher["latency_ms"]["p50"] / small["latency_ms"]["p50"]
    )


def test_a_generator_tells_its_pace(lm_bundles: dict[str, Path]) -> None:
    entries = {"ours": BenchEntry(lm_bundles["llama"], variant="onnx-fp32")}
    config = BenchConfig(quick=True, rounds=3, seconds=2, cold_starts=1)
    rows = bench(entries, ["the cat sees", "a big dog"], None, config)
    assert [row["tokenization"] for row in rows] == [True, False]
    for row in rows:
        check_row(row, "row")
        pace = row["generation"]
        assert (pace["prompt_tokens"], pace["new_tokens"], pace["n"]) == (127, 64, 5)
        assert pace["prefill_tokens_s"] == pytest.approx(127e3 / pace["first_token_ms"])
        assert row["metric"] is None and "an answer is 32 tokens" in row["note"]
        assert "tokens/s" in row["note"] and row["latency_ms"]["p50"] > 0 < row["peak_rss_mb"]
        assert row["parity"]["agreement"] == 1
