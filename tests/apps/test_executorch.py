"""What the command line and the flow know of ExecuTorch."""

from pathlib import Path

from apps import diagnosis
from apps.recipe import ExportConfig
from apps.steps import ranked
from device_bench import figures
from export.variant import DEFAULT, KNOWN


def row(variant: str, p50: float | None, engine: str = "executorch") -> dict:
    return {
        "variant": variant,
        "engine": engine,
        "tokenization": True,
        "latency_ms": p50 and {"p50": p50},
    }


def test_it_is_made_only_where_it_is_named():
    assert {name for name in KNOWN if name.startswith("executorch")} == {"executorch-fp32", "executorch-int8"}
    assert not any(name.startswith("executorch") for name in (*DEFAULT, *ExportConfig().variants))


def test_a_variant_without_times_is_never_the_default_of_a_bundle_with_others():
    rows = [row("executorch-int8", None), row("onnx-fp32", 9.0, "onnxruntime"), row("onnx-int8", 3.0, "onnx")]
    assert ranked([*rows, row("pytorch-fp32", 1.0, "torch")]) == ["onnx-int8", "onnx-fp32", "executorch-int8"]
    assert ranked(rows[:1]) == ["executorch-int8"]


def test_a_report_does_not_take_it_for_the_checkpoint():
    assert figures.colour({"engine": "executorch"}) == "executorch"
    assert figures.colour({"engine": "torch"}) == "torch"


def test_doctor_tells_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setattr(diagnosis, "installed", lambda engine: False)
    monkeypatch.setattr(diagnosis, "interpreter", lambda engine: None)
    assert diagnosis.diagnose()["machine"]["executorch"].startswith("missing: make executorch")
    python = tmp_path / "bin" / "python"
    monkeypatch.setattr(diagnosis, "interpreter", lambda engine: Path(python))
    assert diagnosis.diagnose()["machine"]["executorch"].startswith("no executorch in")
    (tmp_path / "lib" / "python3.11" / "site-packages" / "executorch-1.5.1.dist-info").mkdir(parents=True)
    assert diagnosis.diagnose()["machine"]["executorch"] == f"1.5.1 in {python}"
