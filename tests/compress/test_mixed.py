import numpy as np

from compress.mixed import MixedConfig, _steps, plan_after, within


def test_the_most_sensitive_place_goes_up_first():
    steps = _steps({"embeddings": 0.1, "layer 0 attention": 0.3, "head": 0.2})
    assert steps[:3] == ["layer 0 attention", "head", "embeddings"]
    places = ["embeddings", "layer 0 attention", "head"]
    assert set(plan_after(places, []).values()) == {"int4"}
    assert plan_after(places, steps[:2]) == {
        "embeddings": "int4",
        "layer 0 attention": "int8",
        "head": "int8",
    }
    assert set(plan_after(places, steps).values()) == {"fp32"}


def test_the_budget_is_agreement_and_accuracy():
    want = np.eye(4)[np.arange(100) % 4]
    labels = np.arange(100) % 4
    one_off = want.copy()
    one_off[0] = want[1]
    assert within(want, want, labels, MixedConfig())
    assert not within(one_off, want, labels, MixedConfig(min_agreement=0.995))
    assert not within(one_off, want, labels, MixedConfig(max_drop=0.005))
    assert within(one_off, want, labels, MixedConfig(max_drop=0.01))


def test_the_details_tell_what_stayed_higher(tiny_extra):
    told = tiny_extra("onnx-mixed").details["mixed"]
    assert told["agreement"] >= told["budget"]["min_agreement"]
    assert {"embeddings", "layer 0 attention", "layer 2 feed-forward", "head"} <= set(
        told["rmse_alone_in_int4"]
    )
    assert all(value > 0 for value in told["rmse_alone_in_int4"].values())
    assert set(told["higher"].values()) <= {"int8", "fp32"}
