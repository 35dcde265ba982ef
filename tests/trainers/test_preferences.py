"""DPO, ORPO and PPO: each loss against a second implementation or by hand, and whole runs."""

import json
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from runtimes.errors import InputError
from trainers.checkpoint import Checkpoint
from trainers.generator import open_generator
from trainers.policy import Policy, reference_of
from trainers.preferences.advantages import (
    clipped_policy_loss,
    clipped_value_loss,
    gae,
    next_kl,
    token_rewards,
    whitened,
)
from trainers.preferences.dpo import DpoConfig, dpo, dpo_loss, pair_batches
from trainers.preferences.orpo import OrpoConfig, log_odds, orpo, orpo_loss
from trainers.preferences.ppo import PpoConfig, checked, ppo
from trainers.rollouts import cut, sample
from trainers.tuning import Run

COMMON = {
    "tokens": 6000,
    "max_tokens": 64,
    "batch_size": 5,
    "learning_rate": 1e-2,
    "save_every": 4,
    "device": "cpu",
}
MORE = {**COMMON, "batch_size": 8, "tokens": 12_000, "learning_rate": 2e-2}
PPO = PpoConfig(**MORE, rollouts=32, max_new_tokens=8, missing_end=0.1, kl=0.01)


@pytest.fixture(scope="module")
def moved_model(language_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base, a little away from where it was."""
    folder = tmp_path_factory.mktemp("moved") / "base"
    folder.mkdir()
    for file in language_model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    model = open_generator(language_model)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    model.save_pretrained(folder)
    return folder


def test_dpo_and_orpo_agree_with_trl(
    language_model: Path, moved_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their own trainers, tokenization included."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")  # what an earlier training left there
    texts = [
        {"prompt": f"the {who}", "chosen": f" sees the {what}", "rejected": f"{what} tree a"}
        for who, what in (("cat", "fish"), ("dog", "house"), ("big tree and", "bird in"))
    ]
    shared = {"output_dir": str(tmp_path), "per_device_train_batch_size": 3, "report_to": [], "beta": 0.3,
              "use_cpu": True, "bf16": False, "disable_tqdm": True}  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(language_model)
    policy = Policy(moved_model, DpoConfig(peft="none", device="cpu"))

    theirs = DPOTrainer(
        open_generator(moved_model), open_generator(language_model), args=DPOConfig(**shared),
        train_dataset=Dataset.from_list(texts), processing_class=tokenizer,
    )  # fmt: skip
    batch = next(iter(theirs.get_train_dataloader()))
    ours = _our_batch(batch["input_ids"], batch["completion_mask"].bool(), batch["attention_mask"].bool())
    reference = reference_of(language_model, policy, second=True)
    loss, figures = dpo_loss(reference, 0.3)(policy, ours)
    torch.testing.assert_close(loss / 3, theirs.compute_loss(theirs.model, batch), rtol=1e-4, atol=1e-5)
    assert 0 <= figures["accuracy"] <= 3

    other = ORPOTrainer(
        open_generator(moved_model), args=ORPOConfig(**shared), train_dataset=Dataset.from_list(texts),
        processing_class=tokenizer,
    )  # fmt: skip
    batch = next(iter(other.get_train_dataloader()))
    sides = ("chosen", "rejected")
    width = max(batch[f"{side}_input_ids"].shape[1] for side in sides)
    wide = lambda tensor, value: F.pad(tensor, (0, width - tensor.shape[1]), value=value)  # noqa: E731
    ids = torch.cat([wide(batch[f"{side}_input_ids"], 2) for side in sides])
    learned = torch.cat([wide(batch[f"{side}_labels"], -100) for side in sides]) >= 0
    there = torch.cat([wide(batch[f"{side}_attention_mask"], 0) for side in sides]).bool()
    loss, figures = orpo_loss(0.3)(policy, _our_batch(ids, learned, there))
    _, told = other.get_batch_loss_metrics(other.model, batch)
    assert figures["log_odds_ratio"].item() / 3 == pytest.approx(told["log_odds_chosen"], rel=1e-4)
    # TRL's cross entropy reads the prompts too; the paper's does not, and so ours: it is told by itself.
    wanted = figures["cross_entropy"] / 3 - 0.3 * told["log_odds_ratio"]
    torch.testing.assert_close(loss / 3, wanted, rtol=1e-4, atol=1e-5)


def _our_batch(ids: torch.Tensor, learned: torch.Tensor, there: torch.Tensor):  # type: ignore[no-untyped-def]
    from trainers.batches import batch_of

    rows = []
    for row, mask, real in zip(ids, learned, there, strict=True):
        rows.append((row[real & ~mask].tolist(), row[real & mask].tolist()))
    return batch_of(rows, 2, units=len(rows) // 2)


def test_dpo_begins_at_log_2_and_knows_its_gradient(language_model: Path, answer_pairs: list) -> None:
    """With the policy at the reference every margin is 0; then the gradient is that of the log-probabilities
    times beta / 2 (section 4 of the paper)."""
    from trainers.policy import per_answer

    config = DpoConfig(peft="none", device="cpu", batch_size=2)
    policy = Policy(language_model, config)
    rows = [(([5, 6], [7, 8, 2]), ([5, 6], [9, 2])), (([4], [7, 2]), ([4], [8, 11, 12, 2]))]
    batch = next(pair_batches(rows, 2, config, 0))
    loss, _ = dpo_loss(reference_of(language_model, policy, second=True), 0.4)(policy, batch)
    assert loss.item() == pytest.approx(2 * np.log(2), abs=1e-6)
    loss.backward()
    weight = policy.model.get_output_embeddings().weight
    found = weight.grad.clone()
    weight.grad = None
    chosen, rejected = per_answer(policy.logprobs(policy.hidden(batch), batch), batch).view(2, -1)
    (-0.2 * (chosen - rejected)).sum().backward()
    torch.testing.assert_close(found, weight.grad, rtol=1e-4, atol=1e-6)


def test_orpo_by_hand() -> None:
    p = torch.tensor([0.5, 0.8, 0.01], dtype=torch.float64)
    torch.testing.assert_close(log_odds(p.log()), (p / (1 - p)).log())
    assert torch.isfinite(log_odds(torch.tensor([0.0, -1e-9, -200.0]))).all()


def test_adapter_off_is_the_second_model(language_model: Path) -> None:
    rows = [(([5, 6], [7, 8, 2]), ([5, 6], [9, 2]))] * 2
    policy = Policy(language_model, DpoConfig(device="cpu"))
    with torch.no_grad():
        for name, weight in policy.trained().items():
            if "lora_B" in name:
                weight.add_(0.1)
    batch = next(pair_batches(rows, 2, DpoConfig(batch_size=2), 0))
    off = reference_of(language_model, policy, second=False)(batch)
    torch.testing.assert_close(off, reference_of(language_model, policy, second=True)(batch))
    assert (policy.logprobs(policy.hidden(batch), batch) - off).abs().max() > 0.01


NUMBERS = st.floats(-5, 5).map(lambda value: round(value, 3))


@given(
    pairs=st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=12),
    gamma=st.floats(0.1, 1),
    lam=st.floats(0, 1),
)
def test_gae_is_its_definition(pairs: list, gamma: float, lam: float) -> None:
    rewards, values = (np.array(column) for column in zip(*pairs, strict=True))
    after = [*values[1:], 0.0]
    errors = [r + gamma * n - v for r, n, v in zip(rewards, after, values, strict=True)]
    wanted = [
        sum((gamma * lam) ** k * errors[t + k] for k in range(len(errors) - t)) for t in range(len(errors))
    ]
    np.testing.assert_allclose(gae(rewards, values, gamma, lam), wanted, atol=1e-9)


def test_gae_at_its_ends() -> None:
    """lam 1: what is still to come less what was expected; lam 0: the error of one step."""
    rewards, values = np.array([0.0, 0.0, 1.0]), np.array([0.2, 0.5, 0.7])
    np.testing.assert_allclose(gae(rewards, values, 1, 1), 1 - values)
    np.testing.assert_allclose(gae(rewards, values, 1, 0), [0.3, 0.2, 0.3])


def test_the_clipped_objective_by_hand() -> None:
    """Its gradient is that of r * A, and nothing where r left the clip in the direction of A."""
    ratios = torch.tensor([0.5, 0.9, 1.0, 1.1, 1.5] * 2)
    gains = torch.tensor([1.0] * 5 + [-1.0] * 5)
    logprobs = ratios.log().requires_grad_()
    loss = clipped_policy_loss(logprobs, torch.zeros(10), gains, 0.2)
    torch.testing.assert_close(loss, torch.tensor([-0.5, -0.9, -1, -1.1, -1.2, 0.8, 0.9, 1, 1.1, 1.5]))
    loss.sum().backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([-0.5, -0.9, -1, -1.1, 0, 0, 0.9, 1, 1.1, 1.5]))
    value = clipped_value_loss(torch.tensor([1.0, 0.1]), torch.zeros(2), torch.tensor([1.0, 1.0]), 0.2)
    torch.testing.assert_close(value, torch.tensor([0.32, 0.405]))


def test_rewards_by_token_and_the_adaptive_weight() -> None:
    found = token_rewards(np.array([2.0, -1.0]), [np.array([0.5, -0.5]), np.array([1.0])], 0.1)
    np.testing.assert_allclose(np.concatenate(found), [-0.05, 2.05, -1.1])
    np.testing.assert_allclose(whitened(np.array([1.0, 3.0])), [-1, 1])
    assert not whitened(np.full(3, 7.0)).any()
    assert next_kl(0.1, 12, 6, 1) == pytest.approx(0.12) and next_kl(0.1, 0, 6, 0.5) == pytest.approx(0.09)
    assert next_kl(0.1, 100, 0, 1) == 0.1


@pytest.mark.parametrize("peft", ["lora", "none"])
def test_sampling_is_the_models_own_distribution(language_model: Path, peft: str) -> None:
    """Greedy against transformers' generate; drawn against the probabilities; padding changes nothing."""
    policy = Policy(language_model, DpoConfig(device="cpu", peft=peft))  # type: ignore[arg-type]
    plain = open_generator(language_model)
    prompts = [[5, 6, 7], [9], [11, 12, 13, 14, 15, 16, 17]]
    found = sample(policy.model, prompts, 6, [2], temperature=0)
    for prompt, answer in zip(prompts, found, strict=True):
        wanted = plain.generate(
            torch.tensor([prompt]), max_new_tokens=6, do_sample=False, eos_token_id=2, pad_token_id=2
        )
        assert answer == cut(wanted[0, len(prompt) :].tolist(), [2])
    drawn = sample(policy.model, [[5, 6, 7]] * 4000, 1, [2], seed=3, batch=4000)
    counts = np.bincount([one[0] for one in drawn], minlength=plain.config.vocab_size) / 4000
    with torch.no_grad():
        wanted = plain(torch.tensor([[5, 6, 7]])).logits[0, -1].softmax(-1).numpy()
    assert np.abs(counts - wanted).sum() < 0.3  # about 0.15 by chance
    assert policy.model.training
    assert cut([5, 2, 7], [2]) == [5, 2] and cut([5, 7], [2]) == [5, 7]


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    original = Run.learn

    def learn(self, *args):  # type: ignore[no-untyped-def]
        original(self, *args)
        if self.steps == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "learn", learn)


@pytest.mark.parametrize(("tune", "config"), [(dpo, DpoConfig(**COMMON)), (orpo, OrpoConfig(**COMMON))])
def test_pairs_are_learned_and_a_killed_run_ends_alike(
    tune, config, language_model: Path, answer_pairs: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tune(answer_pairs, language_model, tmp_path / "one", config)
    told = made.meta["metrics"]["training"]
    assert told["curve"][-1]["accuracy"] > 0.9 and told["curve"][-1]["loss"] < told["curve"][0]["loss"]
    assert config.tokens <= told["tokens"] < config.tokens + 5 * 2 * 64
    assert made.meta["data"]["pairs"] == 15 and made.meta["lineage"][-1]["step"] == tune.__name__
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 10)
        tune(answer_pairs, language_model, tmp_path / "two", config)
    again = tune(answer_pairs, language_model, tmp_path / "two", config)
    assert again.digest == made.digest
    assert again.meta["metrics"]["training"]["curve"] == told["curve"]


def letters(prompts: list, answers: list[str]) -> np.ndarray:
    return np.array([answer.count("e") for answer in answers])


@pytest.fixture(scope="module")
def by_ppo(
    language_model: Path, instruction_rows: list, tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    prompts = [row["prompt"] for row in instruction_rows]
    return ppo(prompts, letters, language_model, tmp_path_factory.mktemp("ppo") / "out", PPO)


def test_ppo_earns_more_and_tells_its_rollouts_apart(by_ppo: Checkpoint) -> None:
    told = by_ppo.meta["metrics"]["training"]
    first, last = told["curve"][0], told["curve"][-1]
    assert first["kl"] == 0 and last["kl"] > 0.01
    assert last["reward"] > first["reward"] + 0.3
    assert told["rollout_tokens"] < told["tokens"] and told["rounds"] >= 2
    assert PPO.tokens <= told["tokens"] < PPO.tokens + 8 * 64
    assert by_ppo.meta["lineage"][-1]["step"] == "ppo"


@pytest.mark.slow
def test_ppo_killed_by_the_system_ends_alike(
    by_ppo: Checkpoint, language_model: Path, instruction_rows: list, tmp_path: Path
) -> None:
    code = (
        "import json, os, signal, sys; from pathlib import Path; import numpy as np\n"
        "from trainers.preferences.ppo import PpoConfig, ppo; from trainers.tuning import Run\n"
        "learn = Run.learn\n"
        "def dying(self, *args):\n"
        "    learn(self, *args)\n"
        "    self.steps == 20 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "Run.learn = dying\n"
        "prompts, base, out, config = json.loads(sys.argv[1])\n"
        "def letters(prompts, answers): return np.array([answer.count('e') for answer in answers])\n"
        "ppo(prompts, letters, base, Path(out), PpoConfig(**config))"
    )
    prompts = [row["prompt"] for row in instruction_rows]
    given = json.dumps([prompts, str(language_model), str(tmp_path / "out"), PPO.__dict__])
    done = subprocess.run([sys.executable, "-c", code, given], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert [file.name for file in tmp_path.iterdir()] == [".out.work"]
    state = json.loads((tmp_path / ".out.work" / "point" / "data.json").read_text())
    assert 0 < state["steps"] < 20
    again = ppo(prompts, letters, language_model, tmp_path / "out", PPO)
    assert again.digest == by_ppo.digest
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    for mine, theirs in pairwise([again.meta["metrics"]["training"], by_ppo.meta["metrics"]["training"]]):
        assert {**mine, "seconds": 0, "peak_memory_mb": 0} == {**theirs, "seconds": 0, "peak_memory_mb": 0}


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        (lambda n: [0.0] * (n - 1) + [float("nan")], "reward: gave nan for answer 31 of 32; give finite"),
        (lambda n: [float("inf")] + [0.0] * (n - 1), "reward: gave inf for answer 0 of 32"),
        (lambda n: [1.0], "reward: gave 1 numbers for 32 answers"),
        (lambda n: ["good"] * n, "reward: gave no list of numbers"),
    ],
)
def test_rewards_that_are_no_numbers_are_one_line(
    scores, says: str, language_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says) as caught:
        ppo(["the cat"], lambda prompts, answers: scores(len(answers)), language_model, tmp_path / "out", PPO)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_scores_of_any_kind_of_array() -> None:
    assert checked(torch.tensor([[1.0], [2.0]]), 2).tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("tune", "given", "config", "says"),
    [
        (dpo, [], DpoConfig(), "no pairs"),
        (dpo, [{"prompt": "a", "chosen": "b", "rejected": "b"}], DpoConfig(), "are equal"),
        (dpo, [{"prompt": "a", "chosen": "b", "rejected": "c"}], DpoConfig(beta=0), "dpo.beta = 0"),
        (dpo, [{"prompt": "a", "chosen": "b", "rejected": "c"}], DpoConfig(peft="none", reference="adapter"),
         "there is none with peft = none"),
        (orpo, [{"prompt": "a", "chosen": "b", "rejected": "c"}], OrpoConfig(beta=-1), "orpo.beta = -1"),
    ],
)  # fmt: skip
def test_refusals_come_before_anything_is_opened(tune, given, config, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        tune(given, tmp_path / "no such base", tmp_path / "out", config)


def test_prompts_without_room_are_refused(language_model: Path, tmp_path: Path) -> None:
    for prompts, says in (
        ([], "no prompts"),
        (["the cat " * 40], "none leaves room"),
        ([3], "not a list of role"),
    ):
        with pytest.raises(InputError, match=says):
            ppo(prompts, letters, language_model, tmp_path / "out", PPO)


def test_a_killed_run_of_another_reward_is_not_gone_on_with(
    language_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Letters:
        def __init__(self, letter: str):
            self.letter = self.digest = letter

        def __call__(self, prompts: list, answers: list[str]) -> np.ndarray:
            return np.array([answer.count(self.letter) for answer in answers])

    config = PpoConfig(**{**PPO.__dict__, "rollouts": 4, "batch_size": 4, "epochs": 1, "save_every": 1})
    out, steps, original = tmp_path / "out", [], Run._restore
    monkeypatch.setattr(Run, "_restore", lambda self: (original(self), steps.append(self.steps)))
    stop_after(monkeypatch, 3)
    for reward in (Letters("e"), Letters("e"), Letters("a"), letters, letters):
        with pytest.raises(KeyboardInterrupt):
            ppo(["the cat", "a dog", "the", "a"], reward, language_model, out, config)
    assert steps == [0, 2, 0, 0, 2]


def test_what_is_learned_is_what_was_drawn_from(language_model: Path) -> None:
    """Log-probabilities at the temperature of the draw, of policy and reference alike."""
    policy = Policy(language_model, PpoConfig(device="cpu"))
    batch = next(pair_batches([(([5, 6], [7, 8]), ([5, 6], [9]))] * 2, 2, DpoConfig(batch_size=2), 0))
    states = policy.hidden(batch)
    logits = policy.model.get_output_embeddings()(states) / 2.5
    wanted = logits.log_softmax(-1).gather(1, batch.targets[:, None])[:, 0]
    torch.testing.assert_close(policy.logprobs(states, batch, 2.5), wanted)
    for second in (False, True):
        torch.testing.assert_close(reference_of(language_model, policy, second, 2.5)(batch), wanted)


def test_ppo_prices_drift_at_its_own_temperature(
    language_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainers.preferences import ppo as module
    from trainers.rendering import Renderer
    from trainers.tuned import Start

    config = PpoConfig(device="cpu", temperature=2.5)
    policy = Policy(language_model, config)
    module.give_head(policy)
    start = Start(language_model, policy, Renderer(language_model, 2, 1), 64, "", [])
    reference = reference_of(language_model, policy, False, 2.5)
    old, held, _ = module.experience([([5, 6], [7, 8])], reference, start, config)
    torch.testing.assert_close(old, held)
    with torch.no_grad():
        logits = open_generator(language_model)(torch.tensor([[5, 6, 7, 8]])).logits[0] / 2.5
    wanted = logits.log_softmax(-1)[[1, 2], [7, 8]]
    torch.testing.assert_close(old[0], wanted)


def test_ppo_stops_at_every_end_of_its_base(language_model: Path, tmp_path: Path) -> None:
    """A base all of whose tokens end an answer gives answers of one token, none of them cut."""
    base = tmp_path / "base"
    shutil.copytree(language_model, base)
    size = json.loads((base / "config.json").read_text())["vocab_size"]
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(size))}))
    config = PpoConfig(**{**PPO.__dict__, "tokens": 1, "rollouts": 4, "batch_size": 4})
    told = ppo(["the cat"] * 4, letters, base, tmp_path / "out", config).meta["metrics"]["training"]
    assert (told["curve"][0]["answer_tokens"], told["curve"][0]["ended"]) == (1, 1)
