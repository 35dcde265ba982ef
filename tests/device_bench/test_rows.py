import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_bench.rows import EXTRA_KEYS, KEYS, check_row, open_rows, save_rows
from runtimes.errors import InputError

Make = Callable[..., dict[str, Any]]
SCHEMA = (
    "bundle variant engine engine_version device emulated simulated_profile threads batch n seconds "
    "tokenization latency_ms cold_start_ms peak_rss_mb size_bytes metric parity energy_mj energy_source note"
)


def test_the_schema_is_the_agreed_one() -> None:
    assert list(KEYS) == SCHEMA.split()
    assert not set(KEYS) & set(EXTRA_KEYS)


def test_round_trip_and_json_list(tmp_path: Path, make_row: Make) -> None:
    rows = [make_row(), make_row("tflite-fp32", note="é – 中")]
    save_rows(rows, tmp_path / "deep/rows.jsonl")
    assert open_rows(tmp_path / "deep/rows.jsonl") == rows
    (tmp_path / "list.json").write_text(json.dumps(rows, indent=1))
    assert open_rows(tmp_path / "list.json") == rows
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["rows.jsonl"]


def test_a_bad_row_leaves_the_old_file(tmp_path: Path, make_row: Make) -> None:
    path = tmp_path / "rows.jsonl"
    save_rows([make_row()], path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="row 2: 'threads' is str, not int"):
        save_rows([make_row(), make_row(threads="1")], path)
    assert path.read_bytes() == before


def latency(**more: Any) -> dict[str, Any]:
    return {"p50": 1.0, "p90": 2.0, "p99": 3.0, "mean": 1.2, "ci95": [0.9, 1.1], **more}


def sustained(times: int = 1, **more: Any) -> dict[str, Any]:
    one = {"t_s": 10.0, "n": 9, "p50": 1.0, "temperature_c": None, "mhz": 1500, "throttled": None, **more}
    return {"minutes": 1, "slices": [one] * times, "drop": 1.1}


def device(**more: Any) -> dict[str, Any]:
    from bench_fakes import row

    return {**row()["device"], **more}


def test_new_blocks_and_rows_without_them(make_row: Make) -> None:
    cores = [{"part": "Cortex-A55", "cores": 4, "max_mhz": 1803}, {"part": None, "cores": 4, "max_mhz": None}]
    check_row(make_row(), "old")
    check_row(
        make_row(
            device=device(core_types=cores, throttled="none"),
            sustained=sustained(times=3, temperature_c=-5.5),
            rerun={"p50": 1.0, "difference": -0.04, "n": 256}, rss_mb={"load": 90.0, "run": 96.0},
            energy={"idle_mw": 2400.0, "run_mw": 4100.0, "n": 90, "seconds": 5.0}, overhead_share=1e-4,
        ),
        "new",
    )  # fmt: skip


BAD = [
    ({"variant": None}, "'variant' is null"),
    ({"tokenization": 1}, "'tokenization' is int, not bool"),
    ({"threads": True}, "'threads' is bool, not int"),
    ({"n": -1}, "'n' is -1, which cannot be"),
    ({"seconds": 1e300}, "'seconds' is 1e[+]300, which cannot be"),
    ({"latency_ms": []}, "'latency_ms' is list, not dict"),
    ({"latency_ms": {"p50": 1.0}}, r"'latency_ms\.p90' is missing"),
    ({"latency_ms": latency(p90=0.5)}, "p50 <= p90 <= p99"),
    ({"latency_ms": latency(p50=0.0)}, "0 < p50"),
    ({"latency_ms": latency(mean="1")}, r"'latency_ms\.mean' is str"),
    ({"latency_ms": latency(ci95=[2.0, 1.0])}, r"'latency_ms\.ci95' must be \[low, high\]"),
    ({"latency_ms": latency(ci95=[1.0])}, "ci95"),
    ({"latency_ms": latency(ci95=["<b>", True])}, "ci95"),
    ({"metric": {"name": "accuracy", "value": 0.9, "n": 0}}, r"'metric\.n' must be at least 1"),
    ({"parity": {"max_abs": 0.1, "cosine": 1.0, "agreement": None}}, r"'parity\.agreement' is missing"),
    ({"device": {}}, r"'device\.name' is missing"),
    ({"sample": {"n": "3", "chars_p50": 1, "chars_max": 1}}, r"'sample\.n' is str, not int"),
    ({"ratio_to": {"entry": "torch"}}, r"'ratio_to\.speed' is missing"),
    ({"rerun": {"p50": 1.0, "difference": -1.5, "n": 3}}, r"'rerun\.difference' is -1\.5, which cannot be"),
    ({"rss_mb": {"load": 9.0, "run": None}}, r"'rss_mb\.run' is missing"),
    ({"energy": {"idle_mw": 900, "run_mw": "2", "n": 1, "seconds": 5}}, r"'energy\.run_mw' is str"),
    ({"sustained": {"minutes": 1, "drop": 1.0}}, r"'sustained\.slices' is missing"),
    ({"sustained": sustained(temperature_c="<b>")}, r"'sustained\.slices\.temperature_c' is str"),
    ({"sustained": sustained(throttled=1)}, r"'sustained\.slices\.throttled' is int, not bool"),
    ({"sustained": sustained(more=1)}, r"each of 'sustained\.slices' has t_s, n, p50"),
    ({"sustained": sustained(times=10_001)}, r"'sustained\.slices' has 10001 entries; 10000 at most"),
    ({"device": device(throttled=3)}, r"'device\.throttled' is int, not str"),
    ({"device": device(core_types=[{"part": "A76"}])}, r"each of 'device\.core_types' has part, cores"),
    ({"device": device(core_types=["A76"])}, r"each of 'device\.core_types' has part, cores"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_rows(make_row: Make, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_row(make_row(**change), "rows.jsonl:3")
    assert str(caught.value).startswith("rows.jsonl:3: ")
    assert "\n" not in str(caught.value)


FILES = [
    (b"", "no rows in it"),
    (b"[]", "no rows in it"),
    (b"\n{]\n", r"rows\.jsonl:2: not JSON"),
    (b"3\n", r"rows\.jsonl:1: a bench row is a JSON object, not int"),
    (b"{}\n", r"rows\.jsonl:1: no key 'bundle'"),
    (b'{"bundle": NaN}', "not JSON: NaN is no JSON number"),
    (b"[" * 100_000, "not JSON"),
    (b"\xff\xfe{}", "not UTF-8 at byte 0"),
]


@pytest.mark.parametrize(("content", "message"), FILES)
def test_bad_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        open_rows(path)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        open_rows(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="directory"):
        open_rows(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from([*KEYS, *EXTRA_KEYS]), json_values)
def test_any_value_under_any_key_passes_or_is_one_line(key: str, value: Any) -> None:
    from bench_fakes import row

    try:
        check_row(row(**{key: value}), "x")
    except InputError as error:
        assert "\n" not in str(error)
