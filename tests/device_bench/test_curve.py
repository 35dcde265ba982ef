import re

from bench_fakes import row
from hypothesis import given
from hypothesis import strategies as st

from device_bench.curve import sustained


def run(*slices, minutes=2.0, drop=1.25):
    told = [
        {"t_s": t, "n": 5, "p50": p50, "temperature_c": warm, "mhz": None, "throttled": throttled}
        for t, p50, warm, throttled in slices
    ]
    return row(sustained={"minutes": minutes, "slices": told, "drop": drop})


def test_curves_and_what_they_say():
    card = sustained([run((10, 2.0, 50.0, None), (20, 2.5, 61.0, "throttled now"))])
    assert "1.25 times the latency of the beginning" in card and "throttled in 1 of 2 slices" in card
    assert card.count('class="curve onnx"') == card.count('class="curve litert"') == 2  # wide and narrow
    first, last = re.findall(r'class="curve onnx" d="M[\d.]+,([\d.]+)L[\d.]+,([\d.]+)"', card)[0]
    assert float(first) > float(last)  # slower is higher


def test_no_sensor_no_curve_and_no_run_no_card():
    card = sustained([run((10, 2.0, None, None), drop=None)])
    assert "litert" not in card and "at the end" not in card
    assert sustained([row()]) == ""


@given(st.lists(st.tuples(st.floats(0.1, 7200), st.floats(0.001, 1e4)), min_size=1, max_size=30))
def test_any_run_can_be_drawn(points):
    card = sustained([run(*((t, p50, 40.0, None) for t, p50 in sorted(points)))])
    assert "nan" not in card and "inf" not in card
