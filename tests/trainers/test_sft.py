"""Supervised tuning: what is learned from, packing, adapters, resume points, refusals."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_generator import make_generator

from runtimes.errors import InputError
from trainers.adapter import adapter_digest, check_adapter, merged, weights_digest
from trainers.batches import batch_of, groups, pack, packed
from trainers.checkpoint import Checkpoint, open_checkpoint
from trainers.generator import adopt_generator, open_generator
from trainers.policy import Policy
from trainers.sft import SftConfig, batches, masked_loss, sft
from trainers.tuning import Run, rate

CONFIG = SftConfig(
    tokens=3000, max_tokens=64, batch_size=2, learning_rate=1e-2, save_every=4, device="cpu", precision="fp32"
)


@pytest.fixture(scope="session")
def tuned(
    language_model: Path, instruction_rows: list, tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    return sft(instruction_rows, language_model, tmp_path_factory.mktemp("sft") / "tuned", CONFIG)


def some_rows(n: int = 6) -> list[tuple[list[int], list[int]]]:
    random = np.random.default_rng(0)
    draw = lambda low, high: random.integers(3, 300, random.integers(low, high)).tolist()  # noqa: E731
    return [(draw(3, 9), [*draw(1, 6), 2]) for _ in range(n)]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_packed_row_sees_itself_alone(family: str, tmp_path: Path) -> None:
    """Against one row at a time, through transformers' own loss with its own mask."""
    folder = make_generator(tmp_path / "base", family)
    policy = Policy(folder, SftConfig(peft="none", device="cpu"))
    plain = open_generator(folder)
    rows = some_rows()
    together = packed([rows[:4], rows[4:]], 2, 80)
    apart = batch_of(rows, 2)
    assert together.mask is not None and apart.mask is None
    for batch in (together, apart):
        loss, _ = masked_loss(policy, batch)
        told = torch.zeros(())
        for prompt, answer in rows:
            labels = torch.tensor([[-100] * len(prompt) + answer])
            told += plain(torch.tensor([prompt + answer]), labels=labels).loss * len(answer)
        torch.testing.assert_close(loss, told, rtol=1e-5, atol=1e-4)
        assert (batch.tokens, batch.units) == (
            sum(len(p) + len(a) for p, a in rows),
            sum(len(a) for _, a in rows),
        )


def test_accumulated_passes_are_one_big_one(language_model: Path, tmp_path: Path) -> None:
    rows, weights = some_rows(), []
    for parts in ([rows], [rows[:1], rows[1:]]):
        policy = Policy(language_model, SftConfig(peft="none", device="cpu"))
        run = Run(policy, CONFIG, tmp_path / str(len(parts)), {})
        run.learn([batch_of(part, 2) for part in parts], masked_loss)
        weights.append(torch.cat([weight.detach().flatten() for weight in run.weights]))
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)


def test_it_learns_within_its_budget_and_tells_of_it(tuned: Checkpoint, instruction_rows: list) -> None:
    told = tuned.meta["metrics"]["training"]
    losses = [point["loss"] for point in told["curve"]]
    assert losses[-1] < losses[0] - 1
    assert CONFIG.tokens <= told["tokens"] < CONFIG.tokens + 2 * 64
    assert told["curve"][-1]["tokens"] == told["tokens"] and told["curve"][-1]["step"] == told["steps"]
    assert told["peak_memory_mb"] > 50 and told["seconds"] > 0 and told["trained_parameters"] == 16384
    assert tuned.meta["data"] == {"name": "rows", "rows": len(instruction_rows), "too_long": 0}
    assert [step["step"] for step in tuned.meta["lineage"]] == ["base", "sft"]
    assert open_checkpoint(tuned.path).meta == tuned.meta
    assert [file.name for file in tuned.path.parent.iterdir()] == ["tuned"]


@pytest.mark.parametrize(("peft", "family"), [("lora", "gpt2"), ("dora", "llama"), ("ia3", "llama")])
def test_merged_weights_answer_as_the_adapter_does(
    peft: str, family: str, instruction_rows: list, tmp_path: Path
) -> None:
    import peft as library

    base = make_generator(tmp_path / "base", family)
    config = SftConfig(peft=peft, tokens=900, max_tokens=64, learning_rate=2e-2, packing=False, device="cpu")  # type: ignore[arg-type]
    made = sft(instruction_rows, base, tmp_path / "out", config)
    ids = torch.tensor([some_rows(1)[0][0]])
    kept = library.PeftModel.from_pretrained(open_generator(base), str(made.path / "adapter")).eval()
    with torch.no_grad():
        before, after = open_generator(base)(ids).logits, open_generator(made.path)(ids).logits
        torch.testing.assert_close(kept(ids).logits, after, rtol=1e-4, atol=1e-4)
    assert (before - after).abs().max() > 1e-2
    assert str(tmp_path) not in (made.path / "adapter" / "adapter_config.json").read_text()


def test_an_adapter_of_another_base_is_refused(
    tuned: Checkpoint, language_model: Path, tmp_path: Path
) -> None:
    adapter = tuned.path / "adapter"
    assert check_adapter(adapter, language_model)["kind"] == "lora"
    same = adopt_generator(language_model, tmp_path / "adopted", 64, {})
    check_adapter(adapter, same.path)
    with pytest.raises(InputError, match="of another base") as caught:
        merged(tuned.path, adapter)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="not an adapter"):
        merged(tuned.path, language_model)


def test_an_adapter_is_put_on_its_base_by_a_command(
    tuned: Checkpoint, language_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from apps.language.adapter import main

    adapter = str(tuned.path / "adapter")
    assert main([str(language_model), adapter, "-o", str(tmp_path / "out")]) == 0
    made = open_checkpoint(tmp_path / "out")
    assert weights_digest(made.path) == weights_digest(tuned.path) and made.limits == tuned.limits
    assert main([str(tuned.path), adapter, "-o", str(tmp_path / "other")]) == 2
    assert "of another base" in capsys.readouterr().err and not (tmp_path / "other").exists()


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    original = Run.learn

    def learn(self, *args):  # type: ignore[no-untyped-def]
        original(self, *args)
        if self.steps == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "learn", learn)


@pytest.mark.parametrize("killed_at", [2, 7, 14])
def test_a_killed_run_ends_as_an_unbroken_one(
    killed_at: int, tuned: Checkpoint, language_model: Path, instruction_rows: list, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, killed_at)
        sft(instruction_rows, language_model, tmp_path / "tuned", CONFIG)
    assert not (tmp_path / "tuned").exists()
    seen: list[int] = []
    original = Run._restore
    monkeypatch.setattr(Run, "_restore", lambda self: (original(self), seen.append(self.steps)))
    again = sft(instruction_rows, language_model, tmp_path / "tuned", CONFIG)
    assert seen == [killed_at // 4 * 4]
    assert again.digest == tuned.digest
    told, first = again.meta["metrics"]["training"], tuned.meta["metrics"]["training"]
    assert (told["curve"], told["tokens"]) == (first["curve"], first["tokens"])


def test_another_config_starts_afresh(
    tuned: Checkpoint, language_model: Path, instruction_rows, tmp_path, monkeypatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 5)
        sft(instruction_rows, language_model, tmp_path / "tuned", SftConfig(**{**CONFIG.__dict__, "seed": 1}))
    assert sft(instruction_rows, language_model, tmp_path / "tuned", CONFIG).digest == tuned.digest


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"peft": "prefix"}, "sft.peft = 'prefix': must be one of lora, dora, ia3, none"),
        ({"tokens": 0}, "sft.tokens = 0: must be 1 or more"),
        ({"learning_rate": float("nan")}, "sft.learning_rate = nan"),
        ({"max_tokens": 999}, "128 positions"),
        ({"max_tokens": 12}, "each of the 15 is over max_tokens = 12"),
    ],
)
def test_what_cannot_work_is_one_line_and_leaves_nothing(
    change: dict, says: str, language_model: Path, instruction_rows: list, tmp_path: Path
) -> None:
    config = SftConfig(**{**CONFIG.__dict__, **change})
    with pytest.raises(InputError, match=says) as caught:
        sft(instruction_rows, language_model, tmp_path / "out", config)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_rows_that_are_no_text_are_refused(language_model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "a", "response": " b"}, {"prompt": "a", "response": 7}]
    with pytest.raises(InputError, match="row 1: response is a int, not text"):
        sft(rows, language_model, tmp_path / "out", CONFIG)


def test_a_loss_that_is_not_finite_is_refused(
    language_model: Path, instruction_rows: list, tmp_path: Path
) -> None:
    model = open_generator(language_model)
    with torch.no_grad():
        model.lm_head.weight[5] = float("nan")
    for file in language_model.iterdir():
        (tmp_path / "base").mkdir(exist_ok=True)
        (tmp_path / "base" / file.name).write_bytes(file.read_bytes())
    model.save_pretrained(tmp_path / "base")
    with pytest.raises(InputError, match="the loss is not finite"):
        sft(instruction_rows, tmp_path / "base", tmp_path / "out", CONFIG)
    assert not (tmp_path / "out").exists()


def test_gradient_checkpointing_changes_nothing_but_memory(
    tuned: Checkpoint, language_model: Path, instruction_rows: list, tmp_path: Path
) -> None:
    config = SftConfig(**{**CONFIG.__dict__, "gradient_checkpointing": True})
    made = sft(instruction_rows, language_model, tmp_path / "out", config)
    curve, first = (one.meta["metrics"]["training"]["curve"] for one in (made, tuned))
    np.testing.assert_allclose([p["loss"] for p in curve], [p["loss"] for p in first], rtol=1e-3)


@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=60),
    length=st.integers(20, 50),
    seed=st.integers(0, 9),
)
def test_bins_hold_every_row_once_and_are_not_overfull(lengths: list[int], length: int, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(lengths)).tolist()
    bins = pack(lengths, order, length)
    assert sorted(row for one in bins for row in one) == list(range(len(lengths)))
    assert all(sum(lengths[row] for row in one) <= length for one in bins)
    chunks = groups(lengths, 4, seed)
    epoch = [next(chunks) for _ in range(-(-len(lengths) // 4))]
    assert sorted(row for chunk in epoch for row in chunk) == list(range(len(lengths)))


def test_batches_go_on_where_they_were() -> None:
    rows = some_rows(20)
    for packing in (True, False):
        config = SftConfig(packing=packing, batch_size=2, max_tokens=32)
        first, later = batches(rows, 2, config, 0), batches(rows, 2, config, 7)
        ids = [next(first).ids for _ in range(9)]
        assert torch.equal(next(later).ids, ids[7]) and torch.equal(next(later).ids, ids[8])


def test_the_learning_rate_rises_and_falls_to_nothing() -> None:
    shares = np.linspace(0, 1, 101)
    rates = [rate(float(share), 0.1) for share in shares]
    assert rates[10] == 1 and rates[100] == 0 and 0 < rates[0] < 0.02
    assert all(np.diff(rates)[10:] < 0) and all(np.diff(rates)[:9] > 0)


def test_half_precision_learns_and_ends_in_full(
    language_model: Path, instruction_rows: list, tmp_path: Path
) -> None:
    """As on a GPU: what is not trained is held in bf16, what is trained in fp32; the merge is into fp32."""
    config = SftConfig(**{**CONFIG.__dict__, "precision": "bf16"})
    kinds = {str(weight.dtype) for weight in Policy(language_model, config).model.parameters()}
    assert kinds == {"torch.bfloat16", "torch.float32"}
    made = sft(instruction_rows, language_model, tmp_path / "out", config)
    curve = made.meta["metrics"]["training"]["curve"]
    assert curve[-1]["loss"] < curve[0]["loss"] - 1
    saved = open_generator(made.path)
    assert {weight.dtype for weight in saved.parameters()} == {torch.float32}
    embedded = open_generator(language_model).get_input_embeddings().weight
    assert torch.equal(saved.get_input_embeddings().weight, embedded)  # bf16 did not round what is untouched


@pytest.mark.parametrize("broken", ["cut", "list", "empty"])
def test_a_resume_point_that_does_not_read_back_is_none(
    broken: str, language_model: Path, tmp_path: Path
) -> None:
    def run() -> Run:
        return Run(Policy(language_model, CONFIG), CONFIG, tmp_path / "work", {})

    first = run()
    for _ in range(CONFIG.save_every):
        first.learn([batch_of(some_rows(), 2)], masked_loss)
    first.keep()
    assert run().steps == CONFIG.save_every
    state, told = (tmp_path / "work" / "point" / name for name in ("state.safetensors", "data.json"))
    if broken == "cut":
        state.write_bytes(state.read_bytes()[:-100])
    else:
        told.write_text("[]" if broken == "list" else '{"job": 1}')
    assert run().steps == 0 and not (tmp_path / "work").exists()


@pytest.mark.parametrize("last", [True, False])
def test_a_gradient_that_is_not_finite_is_not_kept(
    last: bool, language_model: Path, instruction_rows: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss may be finite still: in the last step nothing else would show it."""
    original = torch.nn.utils.clip_grad_norm_

    def broken(weights, most):  # type: ignore[no-untyped-def]
        weights[0].grad[0] = float("inf")
        return original(weights, most)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", broken)
    config = SftConfig(**{**CONFIG.__dict__, "tokens": 1 if last else 3000})
    with pytest.raises(InputError, match="a gradient is not finite by step 1" if last else "not finite"):
        sft(instruction_rows, language_model, tmp_path / "out", config)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "sealed"),
    [({"lora_alpha": 1600}, False), ({"r": 7}, True), ({"peft_type": "NONE"}, True), ([], True), ({}, True),
     ("{", True)],
)  # fmt: skip
def test_altered_settings_of_an_adapter_are_one_line(
    changes: Any, sealed: bool, tuned: Checkpoint, language_model: Path, tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(tuned.path / "adapter", adapter)
    file, manifest = adapter / "adapter_config.json", adapter / "checkpoint.json"
    told = json.loads(file.read_text())
    text = changes if isinstance(changes, str) else json.dumps({**told, **changes} if changes else changes)
    file.write_text(text)
    if sealed:
        about = {**json.loads(manifest.read_text()), "digest": adapter_digest(adapter)}
        manifest.write_text(json.dumps(about))
    with pytest.raises(InputError, match="PEFT opens" if sealed else "cut short or altered") as caught:
        merged(language_model, adapter)
    assert "\n" not in str(caught.value)
