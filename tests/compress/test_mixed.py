import numpy as np
import pytest

from compress.graph import place
from compress.mixed import MixedConfig, _steps, lowest_within, plan_after, within
from compress.mixed_tflite import _own, scopes, write


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


@pytest.mark.parametrize("name", ["onnx-mixed", "tflite-mixed"])
def test_the_details_tell_what_stayed_higher(name, tiny_extra):
    told = tiny_extra(name).details["mixed"]
    assert told["agreement"] >= told["budget"]["min_agreement"]
    layers = {f"layer {layer} {part}" for layer in range(3) for part in ("attention", "feed-forward")}
    assert set(told["rmse_alone_in_int4"]) == {"embeddings", "head", *layers}
    assert all(value > 0 for value in told["rmse_alone_in_int4"].values())
    assert set(told["higher"].values()) <= {"int8", "fp32"}


def sayer(plans, good):
    """An engine whose answers hold the budget for the plans that `good` accepts; what it makes is noted."""

    def make(plan):
        plans.append(plan)
        return str(len(plans) - 1)

    def answers(path, rows):
        want = np.eye(2)[rows["labels"]]
        if path == "fp32":
            return want
        plan = plans[int(path)]
        off = sum(at == "int4" for at in plan.values()) * (2 if plan["b"] == "int4" else 1) * 1e-3
        return want + off if good(plan) else 1 - want

    return make, answers


def test_no_place_is_higher_than_it_must_be():
    rows, plans = {"labels": np.arange(64) % 2}, []
    for good, want in (
        (lambda plan: True, {}),
        (lambda plan: plan["b"] != "int4", {"b": "int8"}),
        (lambda plan: plan["b"] == "fp32", {"a": "int8", "b": "fp32", "c": "int8"}),
        (lambda plan: set(plan.values()) == {"fp32"}, dict.fromkeys("abc", "fp32")),
    ):
        told = lowest_within("fp32", list("abc"), *sayer(plans, good), rows)["mixed"]
        assert told["higher"] == want and told["agreement"] == 1
        assert {name: at for name, at in plans[-1].items() if at != "int4"} == want, "the last one made"


def types(path):
    """Of the weights of all linear layers and tables, by signature, in graph order."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    kinds = (schema.BuiltinOperator.FULLY_CONNECTED, schema.BuiltinOperator.EMBEDDING_LOOKUP)
    found = []
    for graph in (model.Subgraphs(i) for i in range(model.SubgraphsLength())):
        nodes = [graph.Operators(i) for i in range(graph.OperatorsLength())]
        nodes = [node for node in nodes if model.OperatorCodes(node.OpcodeIndex()).BuiltinCode() in kinds]
        found.append([graph.Tensors(node.Inputs(1)).Type() for node in nodes])
    names = {
        schema.TensorType.FLOAT32: "fp32",
        schema.TensorType.INT8: "int8",
        schema.TensorType.INT4: "int4",
    }
    return [[names[one] for one in weights] for weights in found]


def test_the_file_has_the_precisions_that_the_plan_says(tiny_variants, tmp_path):
    """In every signature: the embeddings' table, six products a layer, pooler and classifier."""
    source = str(tiny_variants["tflite-fp32"].path)
    where = scopes(source)
    plan = {**dict.fromkeys(where, "int4"), "layer 1 attention": "fp32", "layer 2 feed-forward": "int8"}
    plan["head"] = "fp32"
    write(source, str(tmp_path / "mixed.tflite"), where, plan)
    attention, product = ["int4"] * 4, ["int4"] * 2
    want = ["int4", *attention, *product, *["fp32"] * 4, *product, *attention, "int8", "int8", "fp32", "fp32"]
    assert types(tmp_path / "mixed.tflite") == [want] * 3
    write(source, str(tmp_path / "whole.tflite"), where, dict.fromkeys(where, "fp32"))
    assert {one for weights in types(tmp_path / "whole.tflite") for one in weights} == {"fp32"}


def test_the_tflite_file_is_what_the_details_say(tiny_extra, tiny_variants):
    made = tiny_extra("tflite-mixed")
    higher = made.details["mixed"]["higher"].values()
    got = {one for weights in types(made.path) for one in weights}
    assert set(higher) <= got and ("int4" in got) == (len(higher) < 8)
    assert made.path.stat().st_size < tiny_variants["tflite-fp32"].path.stat().st_size


@pytest.mark.parametrize(
    ("name", "where"),
    [
        (
            "BertEncoder_encoder/m.BertLayer_3/m.BertAttention_attention/Linear_query;1;",
            "layer 3 attention",
        ),
        (
            "x/m.BertLayer_10/m.BertOutput_output/nn.linear.Linear_dense;2;",
            "layer 10 feed-forward",
        ),
        ("x/m.TransformerBlock_2/m.FFN_ffn/torch.nn.modules.linear.Linear_lin1;", "layer 2 feed-forward"),
        ("x/m.TransformerBlock_2/m.MultiHeadSelfAttention_attention/Linear_q_lin;", "layer 2 attention"),
        ("x/m.BertEmbeddings_embeddings/torch.nn.modules.sparse.Embedding_word_embeddings;2;", "embeddings"),
        ("x/BertLayer_1/a;x/m.BertPooler_pooler/Linear_dense;;", "head"),
        ("tokens_32_output_0_output;", "head"),
        ("/bert/encoder/layer.1/attention/output/dense/MatMul", "layer 1 attention"),
    ],
)
def test_a_place_is_read_from_a_name(name, where):
    assert place(_own(name)) == where
