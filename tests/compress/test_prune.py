"""Structured pruning: what is cut is gone, what is left opens everywhere and recovers."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.importance import importance
from compress.prune import PruneConfig, choose, prune, schedule
from runtimes.errors import InputError
from trainers.checkpoint import open_checkpoint
from trainers.model import open_model, open_tokenizer
from trainers.shape import FAMILIES, Kept, cut, encoder_parameters, family_of, whole

SAME = {"batch_size": 16, "learning_rate": 3e-3, "max_tokens": 32, "precision": "fp32"}
HALF = PruneConfig(keep=0.5, steps=2, epochs=2, score_rows=64, **SAME)  # type: ignore[arg-type]


def tiny(kind: str):
    import transformers

    sizes = {"vocab_size": 50, "num_labels": 3, "max_position_embeddings": 20}
    if kind == "distilbert":
        config = transformers.DistilBertConfig(dim=16, hidden_dim=24, n_layers=3, n_heads=4, **sizes)
    else:
        names = {"bert": "Bert", "roberta": "Roberta", "electra": "Electra"}
        config = getattr(transformers, f"{names[kind]}Config")(
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=3,
            num_attention_heads=4,
            **({"embedding_size": 16} if kind == "electra" else {}),
            **sizes,
        )
    torch.manual_seed(0)
    return transformers.AutoModelForSequenceClassification.from_config(config).eval()


IDS = torch.tensor([[3, 7, 11, 40, 2], [9, 8, 30, 21, 2]])


@pytest.mark.parametrize("kind", list(FAMILIES))
def test_cutting_nothing_changes_nothing(kind):
    model = tiny(kind)
    same = cut(model, whole(model, family_of(model, kind)))
    assert torch.equal(model(input_ids=IDS).logits, same(input_ids=IDS).logits)


@pytest.mark.parametrize("kind", list(FAMILIES))
def test_cutting_what_is_silent_changes_nothing(kind, tmp_path):
    """Heads and neurons whose outputs are multiplied by nought can go: the answers stay, the file shrinks."""
    model, family = tiny(kind), FAMILIES[kind]
    kept = Kept([0, 1, 2], [[0, 2], [1], [0, 1, 2, 3]], [list(range(n, n + 10)) for n in (0, 5, 14)], [])
    kept = dataclasses.replace(kept, width=whole(model, family).width)
    with torch.no_grad():
        for layer, heads, neurons in zip(
            model.get_submodule(family.layers), kept.heads, kept.neurons, strict=True
        ):
            silent = [i for h in range(4) if h not in heads for i in range(4 * h, 4 * h + 4)]
            layer.get_submodule(family.out).weight[:, silent] = 0
            layer.get_submodule(family.down).weight[:, [n for n in range(24) if n not in neurons]] = 0
    smaller = cut(model, kept)
    assert encoder_parameters(smaller, family) < 0.6 * encoder_parameters(model, family)
    want = model(input_ids=IDS).logits
    torch.testing.assert_close(smaller(input_ids=IDS).logits, want, atol=1e-5, rtol=1e-5)
    smaller.save_pretrained(tmp_path)
    torch.testing.assert_close(open_model(tmp_path)(input_ids=IDS).logits, want, atol=1e-5, rtol=1e-5)
    again = cut(smaller, whole(smaller, family))  # heads are numbered anew, twice
    assert again.config.pruned_heads == smaller.config.pruned_heads
    torch.testing.assert_close(again(input_ids=IDS).logits, want, atol=1e-5, rtol=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 4), st.integers(1, 24), st.sets(st.integers(0, 2), min_size=1))
def test_any_width_and_depth_opens(heads, neurons, layers):
    model = tiny("bert")
    count = len(layers)
    kept = Kept(
        sorted(layers),
        [list(range(heads))] * count,
        [list(range(neurons))] * count,
        list(range(4 * heads)),
    )
    smaller = cut(model, kept)
    assert smaller.config.hidden_size == 4 * heads and smaller.config.intermediate_size == neurons
    assert smaller(input_ids=IDS).logits.shape == (2, 3)


def test_taylor_is_the_change_of_the_loss_to_first_order(tiny_checkpoint, tiny_data):
    """Scaling one neuron by 1 - e changes the loss of one row by e times its score."""
    model = open_model(tiny_checkpoint.path).eval()
    tokenizer = open_tokenizer(tiny_checkpoint.path, 32)
    row = tiny_data.splits["train"].take([0] * 16)  # one row, again and again
    scores = importance(model, tokenizer, row, "taylor", 16)
    neuron = int(scores.neurons[1].argmax())
    ids = torch.tensor(tokenizer.encode(row.texts[:1]))

    def loss():
        return torch.nn.functional.cross_entropy(
            model(input_ids=ids).logits.double(), torch.tensor(row.labels[:1])
        ).item()

    before, e = loss(), 1e-2
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight[:, neuron] *= 1 - e
    assert abs(loss() - before) / e == pytest.approx(float(scores.neurons[1][neuron]) / 16, rel=0.05)


def test_what_matters_stays(tiny_checkpoint, tiny_data):
    model = open_model(tiny_checkpoint.path)
    tokenizer = open_tokenizer(tiny_checkpoint.path, 32)
    scores = importance(model, tokenizer, tiny_data.splits["train"], "taylor", 64)
    family = FAMILIES["bert"]
    kept = choose(model, scores, 0.5 * encoder_parameters(model, family), None)
    for layer in range(3):
        best = set(scores.neurons[layer].topk(len(kept.neurons[layer])).indices.tolist())
        assert set(kept.neurons[layer]) == best
        assert int(scores.heads[layer].argmax()) in kept.heads[layer]
    assert sum(map(len, kept.heads)) == 6
    fewer = choose(model, scores, 0.5 * encoder_parameters(model, family), 2)
    assert fewer.layers == sorted(scores.layers.topk(2).indices.tolist())
    share = encoder_parameters(cut(model, fewer), family) / encoder_parameters(model, family)
    assert 0.49 < share < 0.51


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["taylor", "magnitude"])
def test_half_of_the_encoder_goes_and_the_answers_stay(tiny_checkpoint, tiny_data, tmp_path, measure):
    config = dataclasses.replace(HALF, importance=measure)
    pruned = prune(tiny_checkpoint, tiny_checkpoint, tiny_data, tmp_path / "pruned", config)
    family = FAMILIES["bert"]
    sizes = [encoder_parameters(open_model(one.path), family) for one in (tiny_checkpoint, pruned)]
    assert 0.49 < sizes[1] / sizes[0] < 0.51
    accuracy = [one.meta["metrics"]["test"]["accuracy"] for one in (tiny_checkpoint, pruned)]
    assert accuracy[1] > accuracy[0] - 0.05 and accuracy[0] > 0.9
    steps = [step["step"] for step in pruned.meta["lineage"]]
    assert steps[-4:] == ["prune", "distil", "prune", "distil"]
    assert pruned.meta["lineage"][-2]["config"]["kept"]["parameters"] == sizes[1]
    assert [file.name for file in tmp_path.iterdir() if not file.name.startswith(".answers")] == ["pruned"]


@pytest.mark.slow
def test_a_pruned_checkpoint_exports_to_both_engines(tiny_checkpoint, tiny_data, tmp_path):
    from export.variants import export_variant
    from runtimes import engines

    config = dataclasses.replace(HALF, steps=1, epochs=1, layers=2)
    pruned = prune(tiny_checkpoint, tiny_checkpoint, tiny_data, tmp_path / "pruned", config)
    feeds = {"input_ids": np.array([[2, 60, 70, 3]]), "attention_mask": np.ones((1, 4), np.int64)}
    feeds["token_type_ids"] = np.zeros((1, 4), np.int64)
    want = open_model(pruned.path).eval()(input_ids=torch.tensor(feeds["input_ids"])).logits.detach().numpy()
    for name in ("onnx-fp32", "tflite-fp32"):
        made = export_variant(name, pruned.path, None, (4,), tmp_path / name)
        session = engines.module(made.engine).open(made.path, 1, made.entry())
        np.testing.assert_allclose(session.run(feeds)["logits"], want, atol=1e-4)


def test_a_killed_pruning_goes_on(tiny_checkpoint, tiny_data, tmp_path, monkeypatch):
    import compress.prune as module

    made = []
    original = module.distil

    def distil(teacher, start, dataset, out, config):
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append(out.name)
        return original(teacher, start, dataset, out, config)

    config = dataclasses.replace(HALF, epochs=1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "distil", distil)
        prune(tiny_checkpoint, tiny_checkpoint, tiny_data, tmp_path / "pruned", config)
    with monkeypatch.context() as patch:
        calls = []
        patch.setattr(module, "distil", lambda *a: (calls.append(a[3].name), original(*a))[1])
        again = prune(tiny_checkpoint, tiny_checkpoint, tiny_data, tmp_path / "pruned", config)
    assert calls == ["pruned"]
    assert open_checkpoint(tmp_path / "pruned").digest == again.digest


def test_the_schedule_ends_where_it_should():
    assert schedule(0.5, 1) == [0.5]
    shares = schedule(0.25, 4)
    assert shares[-1] == 0.25 and all(a > b for a, b in itertools.pairwise(shares))


@pytest.mark.parametrize(("change", "message"), [
    ({"keep": 0.0}, r"prune\.keep = 0.0"), ({"keep": 1.5}, r"prune\.keep = 1.5"),
    ({"layers": 0}, r"prune\.layers = 0"), ({"layers": 9}, r"prune\.layers = 9: the model has 3"),
    ({"importance": "luck"}, "must be taylor or magnitude"), ({"steps": 0}, "steps must be 1 to 20"),
    ({"epochs": 0}, r"prune\.epochs"), ({"alpha": 2.0}, "prune: .*alpha 0 to 1"),
])  # fmt: skip
def test_bad_values(tiny_checkpoint, tiny_data, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        config = dataclasses.replace(HALF, **change)
        prune(tiny_checkpoint, tiny_checkpoint, tiny_data, tmp_path / "pruned", config)


def test_too_few_rows_to_score_with(tiny_checkpoint, tiny_data):
    model = open_model(tiny_checkpoint.path)
    with pytest.raises(InputError, match="3 rows to score parts with; give at least 16"):
        few = tiny_data.splits["train"].take(range(3))
        importance(model, open_tokenizer(tiny_checkpoint.path, 32), few, "taylor", 64)


def test_a_width_that_heads_do_not_fit(tiny_checkpoint):
    model = open_model(tiny_checkpoint.path)
    everything = whole(model, FAMILIES["bert"])
    with pytest.raises(InputError, match="width 12 must be a multiple of 8"):
        cut(model, dataclasses.replace(everything, width=list(range(12))))
