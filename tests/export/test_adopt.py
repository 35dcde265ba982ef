"""Files that users bring: recognised, adapted to the bundle's contract, proved; or refused in one line."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.adopt import adopt, are_probabilities, kind_of, plan_lengths, roles
from export.variant import DEFAULT
from runtimes import engines
from runtimes.errors import InputError
from runtimes.load import load

ROWS = 50  # of the small embedding: the largest id that it knows is 49


def small_graph(path: Path, **change) -> Path:
    """Embedding → mean over the masked tokens → linear, as ONNX; `change` says what is unusual about it."""
    from onnx import TensorProto, helper, numpy_helper

    how = {"names": ["ids", "seen"], "ids": TensorProto.INT64, "batch": "n", "length": "l", "labels": 3}
    how |= {"end": None, "output": "scores", "rows": ROWS, "inside": "pooled", "extra": False} | change
    rng = np.random.default_rng(0)
    weights = {
        "table": rng.normal(size=(how["rows"], 8)),
        "out": rng.normal(size=(8, how["labels"])) * 3,
        "one": np.array([1.0]),
    }
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    tensors += [numpy_helper.from_array(np.array([axis]), name) for name, axis in (("a1", 1), ("a2", 2))]
    ids, *mask = how["names"]
    inputs = [helper.make_tensor_value_info(ids, how["ids"], [how["batch"], how["length"]])]
    nodes = [helper.make_node("Gather", ["table", ids], ["words"])]
    if how["ids"] == TensorProto.FLOAT:
        nodes = [
            helper.make_node("Cast", [ids], ["whole"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "whole"], ["words"]),
        ]
    if mask:
        inputs.append(helper.make_tensor_value_info(mask[0], how["ids"], [how["batch"], how["length"]]))
        nodes += [
            helper.make_node("Cast", [mask[0]], ["float_mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["float_mask", "a2"], ["wide_mask"]),
            helper.make_node("Mul", ["words", "wide_mask"], ["kept"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["words"], ["kept"]))
    nodes.append(helper.make_node("ReduceSum", ["kept", "a1"], [how["inside"]], keepdims=0))
    last = how["output"] if how["end"] is None else "before"
    nodes.append(helper.make_node("MatMul", [how["inside"], "out"], [last]))
    if how["end"]:
        nodes.append(helper.make_node(how["end"], ["before"], [how["output"]]))
    outputs = [helper.make_tensor_value_info(how["output"], TensorProto.FLOAT, [how["batch"], how["labels"]])]
    if how["extra"]:
        shape = [how["batch"], 8]
        outputs.insert(0, helper.make_tensor_value_info(how["inside"], TensorProto.FLOAT, shape))
    graph = helper.make_graph(nodes, "small", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def bring(source: Path, out: Path, labels: int = 3, largest_id: int = ROWS - 1, max_tokens: int | None = 16):
    return adopt(source, labels, largest_id, out, max_tokens)


def answers(adopted, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    variant = adopted.variant
    session = engines.module(variant.engine).open(variant.path, 1, variant=variant.entry())
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return session.run(feeds)["logits"]


def by_hand(path: Path, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The same sums in numpy, from the file's own weights."""
    import onnx
    from onnx import numpy_helper

    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(str(path)).graph.initializer}
    return (weights["table"][ids] * mask[..., None]).sum(axis=1) @ weights["out"]


UNUSUAL = {
    "positions tell": {},
    "names tell": {"names": ["tokens", "my_mask_ids"]},
    "no mask": {"names": ["x"]},
    "int32": {"ids": 6},
    "float ids": {"ids": 1},
    "fixed length": {"length": 16},
    "batch of one": {"batch": 1},
    "softmax": {"end": "Softmax"},
    "names taken inside": {"inside": "logits", "names": ["input_ids", "attention_mask"]},
    "two outputs": {"extra": True},
    "two outputs, one named": {"extra": True, "output": "logits", "labels": 8},
}


@pytest.mark.parametrize("change", UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_graphs_are_adapted(change, tmp_path):
    source = small_graph(tmp_path / "a.onnx", **change)
    adopted = bring(source, tmp_path / "out", labels=change.get("labels", 3))
    rng = np.random.default_rng(1)
    ids, mask = rng.integers(0, ROWS, (1, 16)), np.ones((1, 16), np.int64)
    if len(change.get("names", "ab")) == 2:
        mask[0, 9:] = 0
    want, got = by_hand(source, ids, mask), answers(adopted, ids, mask)
    if change.get("end"):
        np.testing.assert_allclose(np.exp(got).sum(), 1, rtol=1e-4)
        want, got = want - want.max(), got - got.max()
        want, got = np.maximum(want, -15), np.maximum(got, -15)  # probabilities have a floor
    np.testing.assert_allclose(got, want, atol=1e-3)
    assert adopted.variant.name == "onnx-fp32" and adopted.max_tokens == 16


def test_lengths_follow_the_graph(tmp_path):
    free = bring(small_graph(tmp_path / "free.onnx"), tmp_path / "o1")
    unmasked = bring(small_graph(tmp_path / "no.onnx", names=["x"]), tmp_path / "o2")
    single = bring(small_graph(tmp_path / "one.onnx", batch=1), tmp_path / "o3", max_tokens=40)
    assert free.variant.details == {} and unmasked.variant.details == {"lengths": [16]}
    assert single.variant.details == {"lengths": [16, 32, 40]}
    assert bring(small_graph(tmp_path / "a.onnx"), tmp_path / "o4", max_tokens=None).max_tokens == 128


REFUSED = {
    "two labels": ({}, {"labels": 2}, r"answers of shape \(1, 3\) for 2 labels.*--labels"),
    "one number": ({"labels": 1}, {"labels": 2}, "one number a text for 2 labels"),
    "sigmoid": ({"end": "Sigmoid"}, {}, "a probability of its own"),
    "tokenizer too large": ({}, {"largest_id": ROWS}, "embedding has 50 rows, but .* up to 50"),
    "batch of four": ({"batch": 4}, {}, "takes batches of 4"),
    "too long": ({"length": 8}, {"max_tokens": 16}, "--max-tokens 16, but it takes 8 tokens"),
    "strings": ({"ids": 8, "names": ["x"]}, {}, "takes raw strings"),
}


@pytest.mark.parametrize(("change", "asked", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(change, asked, message, tmp_path):
    source = small_graph(tmp_path / "a.onnx", **change)
    with pytest.raises(InputError, match=message) as told:
        bring(source, tmp_path / "out", **asked)
    assert str(told.value).startswith(str(source)) and "\n" not in str(told.value)
    assert not (tmp_path / "out").exists()


def test_external_weights_are_refused(tmp_path):
    import onnx

    model = onnx.load(str(small_graph(tmp_path / "a.onnx")))
    path = tmp_path / "b.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(InputError, match="keeps its weights in other files"):
        bring(path, tmp_path / "out")


def test_a_whole_variant_stays_byte_for_byte(tiny_variants, tiny_extra, tmp_path):
    for name in (*DEFAULT, "onnx-int4", "onnx-wi8"):
        own = tiny_variants[name] if name in tiny_variants else tiny_extra(name)
        adopted = bring(own.path, tmp_path / name, labels=4, largest_id=100, max_tokens=None)
        assert adopted.variant.name == name and adopted.variant.path.read_bytes() == own.path.read_bytes()
        if name.startswith("tflite"):
            assert adopted.variant.details == own.details


@pytest.mark.slow
def test_a_torch_export_with_names_of_its_own(tiny_checkpoint, tmp_path):
    """Probabilities, int32 ids, a fixed length, other names: the answers are the checkpoint's."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from runtimes.tasks.classify import softmax

    model = AutoModelForSequenceClassification.from_pretrained(tiny_checkpoint.path).eval()

    class Probabilities(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, tokens, there):
            return self.model(input_ids=tokens.long(), attention_mask=there.long()).logits.softmax(-1)

    path = tmp_path / "mine.onnx"
    sample = (torch.ones(1, 16, dtype=torch.int32), torch.ones(1, 16, dtype=torch.int32))
    names = {"input_names": ["tokens", "there"], "output_names": ["p"], "dynamo": False}
    torch.onnx.export(Probabilities().eval(), sample, str(path), **names)
    adopted = bring(path, tmp_path / "out", labels=4, largest_id=100, max_tokens=None)
    assert adopted.max_tokens == 16 and adopted.seen["probabilities"]
    assert adopted.seen["inputs"] == {"tokens": "input_ids", "there": "attention_mask"}
    reference = load(tiny_checkpoint.path, threads=1)
    for text in ("wheat and corn", "oil barrels of the opec", "the port strike"):
        feeds = reference.prepare([text])[0].feeds
        room = 16 - feeds["input_ids"].shape[1]
        ids, mask = (np.pad(feeds[key], ((0, 0), (0, room))) for key in ("input_ids", "attention_mask"))
        want = softmax(reference.logits([text]))
        np.testing.assert_allclose(softmax(answers(adopted, ids, mask)), want, atol=1e-4)


def without_signatures(path: Path, out: Path) -> Path:
    from ai_edge_litert.tools.flatbuffer_utils import read_model, write_model

    model = read_model(str(path))
    model.signatureDefs = None
    write_model(model, str(out))
    return out


def test_a_tflite_without_signatures_gets_one(tiny_variants, tmp_path):
    own = tiny_variants["tflite-fp32"]
    source = without_signatures(own.path, tmp_path / "bare.tflite")
    adopted = bring(source, tmp_path / "out", labels=4, largest_id=100, max_tokens=None)
    length = adopted.max_tokens
    assert adopted.variant.details["lengths"] == [length] and length in (8, 16, 32)
    ids, mask = np.arange(length)[None] + 5, np.ones((1, length), np.int64)
    mask[0, length // 2 :] = 0
    session = engines.module("litert").open(own.path, 1, variant=own.entry())
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0}
    np.testing.assert_allclose(answers(adopted, ids, mask), session.run(feeds)["logits"], atol=1e-5)


@pytest.mark.parametrize("name", ["onnx-fp32", "tflite-fp32"])
def test_damaged_files_are_one_line(name, tiny_variants, tmp_path):
    """Cut short or changed: refused, or (a changed weight) adopted; the process never dies."""
    whole, rng = tiny_variants[name].path.read_bytes(), random.Random(0)
    path = tmp_path / f"bad{tiny_variants[name].path.suffix}"
    refused = 0
    for trial in range(6):
        data = bytearray(whole[: rng.randrange(20, len(whole))] if trial < 3 else whole)
        for _ in range(10 * (trial >= 3)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            bring(path, tmp_path / "out", labels=4, largest_id=100, max_tokens=32)
        except InputError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
            refused += 1
    assert refused >= 3, "at least those that were cut short"


FILES = {
    "a.pt": (b"PK\x03\x04" + bytes(40), "a pickle, which is never opened"),
    "a.bin": (b"\x80\x02" + bytes(40), "a pickle, which is never opened"),
    "a.onnx": (b"PK\x03\x04" + bytes(40), "a pickle, which is never opened"),
    "b.onnx": (b"\x80\x04\x95" + bytes(40), "a pickle, which is never opened"),
    "a.h5": (b"\x89HDF\r\n\x1a\n" + bytes(40), "the old Keras format"),
    "a.keras": (b"\x89HDF\r\n\x1a\n" + bytes(40), "the old Keras format"),
    "b.keras": (b"no zip at all at all", "not a whole .keras file"),
    "a.safetensors": (bytes(40), "weights without their graph"),
    "a.txt": (bytes(40), "not a kind that is known"),
    "c.onnx": (b"short", "5 bytes"),
}


@pytest.mark.parametrize("name", FILES)
def test_other_kinds_of_files(name, tmp_path):
    data, message = FILES[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        kind_of(tmp_path / name)


def test_other_kinds_of_folders(tiny_checkpoint, tmp_path):
    with pytest.raises(InputError, match="a checkpoint folder; export it as"):
        kind_of(tiny_checkpoint.path)
    with pytest.raises(InputError, match=r"no saved_model\.pb"):
        kind_of(tmp_path)
    with pytest.raises(InputError, match="no such model"):
        kind_of(tmp_path / "nothing.onnx")


@pytest.mark.parametrize(
    ("names", "want"),
    [
        (["input_word_ids", "input_mask", "input_type_ids"], "ids mask type"),
        (["segment_ids", "input_ids", "attention_mask"], "type ids mask"),
        (["args_0", "args_1"], "ids mask"),
        (
            ["serving_default_args_0:0", "serving_default_args_1:0", "serving_default_args_2:0"],
            "ids mask type",
        ),
        (["x"], "ids"),
        (["mask", "x"], "mask ids"),
        (["input_1", "input_2"], "ids mask"),
    ],
)
def test_roles(names, want):
    short = {"ids": "input_ids", "mask": "attention_mask", "type": "token_type_ids"}
    assert list(roles(names).values()) == [short[one] for one in want.split()]


@pytest.mark.parametrize("names", [["ids", "position_ids"], list("abcd"), ["mask", "a", "b"]])
def test_roles_that_cannot_be_told(names):
    with pytest.raises(InputError):
        roles(names)


@given(st.lists(st.text(max_size=30), min_size=1, max_size=4, unique=True))
def test_roles_are_different_or_an_input_error(names):
    try:
        found = roles(names)
    except InputError:
        return
    assert list(found) == names and len(set(found.values())) == len(names)
    assert "input_ids" in found.values() or len(names) > 1


def test_the_second_input_must_be_a_mask(tmp_path):
    """Told apart by position only, and the second input adds to the words instead of hiding them."""
    import onnx

    source = small_graph(tmp_path / "a.onnx", names=["a", "b"])
    model = onnx.load(str(source))
    for node in model.graph.node:
        node.op_type = "Add" if node.op_type == "Mul" else node.op_type
    source.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="does not work as a mask"):
        bring(source, tmp_path / "out")


def test_plan_lengths():
    assert plan_lengths(None, None, True, 100) is None
    assert plan_lengths(None, None, False, 100) == [100]
    assert plan_lengths(1, None, True, 40) == [16, 32, 40]
    assert plan_lengths(1, 64, True, 50) == [64]


def test_are_probabilities():
    assert are_probabilities(np.array([[0.2, 0.8], [1.0, 0.0]]))
    assert not are_probabilities(np.array([[-0.2, 0.8], [1.0, 0.0]]))
    with pytest.raises(InputError, match="a sigmoid"):
        are_probabilities(np.array([[0.9, 0.8], [1.0, 0.0]]))
