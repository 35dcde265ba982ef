import re

import pytest
from bench_fakes import row

from device_bench import figures, overview
from device_bench.report import report


def on(name, *rows, **more):
    device = {**row()["device"], "name": name}
    return [{**one, "device": device, **more} for one in rows]


@pytest.fixture
def devices():
    fast = [row("onnx-int8", 2.0, 0.90, precision="int8"), row("onnx-fp32", 5.0, 0.905, precision="fp32")]
    emulated = [{**one, "latency_ms": None} for one in fast]
    return {
        "Desk": on("Desk", *fast),
        "Pi": on("Pi", row("onnx-int8", 9.0, 0.88), row("tflite-fp32", 12.0, 0.905, engine="ai_edge_litert")),
        "Board": on("Board", *emulated, emulated=True),
    }


def test_the_choice_is_the_quickest_within_a_point(devices):
    assert figures.choice(devices["Desk"])["variant"] == "onnx-int8"
    assert figures.choice(devices["Pi"])["variant"] == "tflite-fp32"  # int8 loses 2.5 points there
    assert figures.choice(devices["Board"]) is None
    assert figures.choice([row(engine="torch")]) is None


def test_each_device_has_its_default_and_the_reason(devices):
    keys = {id(one): f"k{n}" for n, one in enumerate(one for part in devices.values() for one in part)}
    page = overview.overview(devices, keys)
    words = re.sub(r"<[^>]+>", " ", page)
    assert "2.50 times as fast as the next, onnx-fp32" in words
    assert "onnx-int8 is quicker, but loses more than a point" in words
    assert "emulated, so nothing is timed" in words and "99.8%" in words
    assert 'data-measure="energy"' not in page  # nobody measured it
    assert page.count('data-key="k0"') == 2 * 4  # wide and narrow, by p50, p90, size and memory


def test_filters_stand_only_where_there_is_a_choice(devices):
    assert overview.filters({"Desk": on("Desk", row())}) == ""
    found = overview.filters(devices)
    assert re.findall(r'name="(\w+)" value="([^"]+)"', found)[:3] == [
        ("device", "Desk"), ("device", "Pi"), ("device", "Board")
    ]  # fmt: skip


def test_hostile_device_names_stay_text(tmp_path):
    rows = on('<img src=x>"&', row()) + on("Pi", row())
    page = report(rows, tmp_path / "page.html").read_text()
    assert "<img" not in page and page.count("<h2>Across devices</h2>") == 1
