"""What one run of the comparison does, in a process of its own: rewards, the start, pairs, a tuned model."""

import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from apps.language.align.config import AlignConfig
from apps.language.align.diversity import distinct, repetition
from apps.language.align.evaluation import Answer, divergence, perplexity
from apps.language.align.plan import Run, method_config
from apps.language.align.speaker import Speaker
from apps.language.align.worlds import World, labelled, open_world, prompts_of
from runtimes.errors import InputError
from trainers.checkpoint import Checkpoint, open_checkpoint
from trainers.files import digest_of, read_json, write_json
from trainers.finetune import TrainConfig
from trainers.generator import open_generator
from trainers.linear import train_linear
from trainers.policy import Policy
from trainers.preferences.dpo import dpo
from trainers.preferences.orpo import orpo
from trainers.preferences.ppo import ppo
from trainers.reward import open_reward, tested, train_reward, train_sentiment
from trainers.sft import sft
from trainers.sources import find
from trainers.tuning import Watch

Result = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a comparison lies: `folder` has world.json, a folder for each checkpoint, and results/."""

    folder: Path
    config: AlignConfig

    def result(self, run: Run) -> Path:
        return self.folder / "results" / f"{run.name}.json"

    def world(self) -> World:
        return open_world(self.folder / "world.json")

    def checkpoint(self, name: str) -> Path:
        return self.folder / "checkpoints" / name

    def pairs(self, seed: int) -> Path:
        return self.folder / f"pairs-seed{seed}.json"


def job_of(config: AlignConfig, run: Run) -> str:
    """Digest of all that a run's result follows from: a result of other settings is not taken for it."""
    told = asdict(config)
    for key in (
        "seeds",
        "methods",
        "no_peft",
        "keep_weights",
        "label",
        *(k for k in told if "sensitivity" in k),
    ):
        told.pop(key)
    for method in {"sft", "ppo", "dpo", "orpo"} - {run.method} - ({"sft"} if run.kind != "reward" else set()):
        told.pop(method)
    return digest_of({"run": json.dumps(asdict(run), default=str), "config": json.dumps(told)})


def is_done(place: Place, run: Run) -> bool:
    path = place.result(run)
    return path.is_file() and read_json(path).get("job") == job_of(place.config, run)


def do(place: Place, run: Run) -> Result:
    """Do a run and write its result, last of all and whole. Killed and called again, it goes on."""
    started = time.perf_counter()
    step: Callable[[Place, Run], Result] = {
        "reward": _reward, "judge": _reward, "linear": _linear, "start": _start, "pairs": _pairs,
        "model": _model,
    }[run.kind]  # fmt: skip
    found = step(place, run)
    about = {
        "name": run.name, "kind": run.kind, "world": place.config.world, "comparison": place.config.name,
        "label": place.config.label, "method": run.method, "seed": run.seed, "changed": dict(run.changed),
        "job": job_of(place.config, run), "machine": _machine(),
    }  # fmt: skip
    spent = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time()}
    result = {**about, **found, **{key: round(value, 2) for key, value in spent.items()}}
    write_json(place.result(run), result)
    return result


def _machine() -> dict[str, Any]:
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    threads = torch.get_num_threads()
    return {"gpu": gpu, "cpu": platform.machine(), "cores": os.cpu_count(), "threads": threads,
            "torch": torch.__version__}  # fmt: skip


# rewards and judges


def _reward(place: Place, run: Run) -> Result:
    """The reward that is trained against, or the judge: the same kind, on other rows and by another seed."""
    config, world = place.config, place.world()
    judge = run.kind == "judge"
    rows, out = (world.judge if judge else world.reward), place.checkpoint(run.name)
    if config.world == "sentiment":
        how: TrainConfig = replace(config.classifier, seed=config.classifier.seed + 100 * judge)
        made = train_sentiment(labelled(rows, world.test, run.name), config.encoder, out, how)
        accuracy = made.meta["metrics"]["test"]["accuracy"]
    else:
        paired = replace(config.reward, seed=config.reward.seed + 100 * judge)
        made, accuracy = train_reward(rows, world.test, config.encoder, out, paired), None
    return _told(made, run.name, accuracy)


def _linear(place: Place, run: Run) -> Result:
    world, out = place.world(), place.checkpoint(run.name)
    rows, test = world.judge, world.test
    if place.config.world == "sentiment":
        made = train_linear([row["text"] for row in rows], [row["label"] for row in rows], out)
        good, bad = ([row["text"] for row in test if row["label"] == label] for label in (1, 0))
        pairs = [{"prompt": "", "chosen": a, "rejected": b} for a, b in zip(good, bad, strict=False)]
    else:
        sides = ([row[side] for row in rows] for side in ("chosen", "rejected"))
        chosen, rejected = sides
        made, pairs = train_linear(chosen, [], out, rejected), test
    return _told(tested(made, pairs), run.name)


def _told(made: Checkpoint, name: str, accuracy: float | None = None) -> Result:
    test = made.meta["metrics"]["test"]
    print(f"{name}: right on {test['pair_accuracy']:.1%} of {test['pairs']} held-out pairs", flush=True)
    return {"pair_accuracy": test["pair_accuracy"], "pairs": test["pairs"], "accuracy": accuracy}


# the start, and pairs that are sampled from it


def _base(config: AlignConfig) -> Path:
    return find(config.base, "model").path


def _start(place: Place, run: Run) -> Result:
    config, out = place.config, place.checkpoint(run.name)
    how = replace(config.sft, tokens=config.tokens, seed=run.seed)
    made = sft(place.world().sft, _base(config), out, how)
    return {"training": made.meta["metrics"]["training"]}


def _pairs(place: Place, run: Run) -> Result:
    """Answers sampled from the start; of each prompt's, the reward's best against its worst."""
    config, world = place.config, place.world()
    prompts = prompts_of(world.sft)
    order = np.random.default_rng(run.seed).permutation(len(prompts))[: config.sampled_prompts]
    asked = [prompts[i] for i in order for _ in range(config.samples)]
    speaker = Speaker(place.checkpoint(f"start-seed{run.seed}"), config)
    texts = [answer.text for answer in speaker(asked, run.seed)]
    scores = open_reward(place.checkpoint("reward"))(asked, texts)
    pairs = rank(asked, texts, scores, config.samples)
    if not pairs:
        raise InputError(f"{run.name}: no two answers differ; take more samples or a longer start")
    write_json(place.pairs(run.seed), pairs)
    gap = float(np.mean([pair["gap"] for pair in pairs]))
    return {"answers": len(texts), "pairs": len(pairs), "mean_gap": gap, "mean_reward": float(scores.mean())}


def rank(prompts: list[Any], texts: list[str], scores: np.ndarray, samples: int) -> list[dict[str, Any]]:
    """Of every `samples` answers in a row, which share a prompt: the best against the worst that says
    something else. Empty answers take no part."""
    pairs = []
    for first in range(0, len(texts), samples):
        said = [i for i in range(first, first + samples) if texts[i].strip()]
        if not said:
            continue
        best, worst = max(said, key=lambda i: scores[i]), min(said, key=lambda i: scores[i])
        if scores[best] > scores[worst] and texts[best] != texts[worst]:
            gap = float(scores[best] - scores[worst])
            pairs.append(
                {"prompt": prompts[first], "chosen": texts[best], "rejected": texts[worst], "gap": gap}
            )
    return pairs


# a model: trained by its method, then looked at


def _model(place: Place, run: Run) -> Result:
    made = _trained(place, run)
    found = _evaluated(place, run, made)
    if run.method not in ("base", "start") and not place.config.keep_weights:
        for file in made.glob("*.safetensors"):  # the adapter beside it stays
            file.unlink()
    return found


def _trained(place: Place, run: Run) -> Path:
    config, start = place.config, place.checkpoint(f"start-seed{run.seed}")
    if run.method == "base":
        return _base(config)
    if run.method == "start":
        return start
    out, how = place.checkpoint(run.name), method_config(config, run)
    if (out / "checkpoint.json").is_file():
        if any(out.glob("*.safetensors")):  # trained before, and cut off while it was looked at
            return open_checkpoint(out).path
        shutil.rmtree(out)
    watch = _watch(place, run) if not run.changed else None
    if run.method == "sft":
        sft(place.world().sft, start, out, how, watch=watch)
    elif run.method == "chosen":
        rows = [{"prompt": p["prompt"], "response": p["chosen"]} for p in _preferred(place, run.seed)]
        sft(rows, start, out, how, watch=watch)
    elif run.method == "dpo":
        dpo(_preferred(place, run.seed), start, out, how, watch=watch)
    elif run.method == "orpo":
        orpo(_preferred(place, run.seed), _base(config), out, how, watch=watch)
    else:
        reward = open_reward(place.checkpoint("reward"))
        ppo(prompts_of(place.world().sft), reward, start, out, how, watch=watch)
    return out


def _watch(place: Place, run: Run) -> Watch:
    """The reward on watched prompts, which are no one's training rows and none of the held-out ones."""
    prompts, config = prompts_of(place.world().watched), place.config
    reward = open_reward(place.checkpoint("reward"))
    start = place.checkpoint(f"start-seed{run.seed}")

    def look(policy: Policy) -> dict[str, Any]:
        with policy.autocast():
            answers = Speaker(start, config, policy.model)(prompts, config.evaluation.seed)
        scores = reward(prompts, [answer.text for answer in answers])
        return {
            "reward": round(float(scores.mean()), 4),
            "length": float(np.mean([len(a.ids) for a in answers])),
        }

    return Watch(config.evaluation.points, look)


def _preferred(place: Place, seed: int) -> list[dict[str, Any]]:
    if place.config.pairs == "human":
        return place.world().pairs
    keys = ("prompt", "chosen", "rejected")
    return [{key: pair[key] for key in keys} for pair in read_json(place.pairs(seed))]


def _evaluated(place: Place, run: Run, path: Path) -> Result:
    started = time.perf_counter()
    config, world = place.config, place.world()
    speaker = Speaker(path, config)
    prompts = prompts_of(world.held_out)
    answers = speaker(prompts, config.evaluation.seed + run.seed)
    texts = [answer.text for answer in answers]
    found = {
        "answers": {
            "text": texts, "tokens": [len(one.ids) for one in answers],
            "ended": [one.ended for one in answers],
        },
        "scores": {
            name: _rounded(open_reward(place.checkpoint(name))(prompts, texts))
            for name in ("reward", "judge", "linear")
        },
        "kl": _moved(place, run, speaker, prompts, answers),
        "perplexity": _forgot(place, speaker),
        "distinct_2": distinct(texts, 2),
        "repetition_4": repetition(texts),
    }  # fmt: skip
    training = {} if run.method == "base" else open_checkpoint(path).meta["metrics"]["training"]
    return {**found, "training": training, "evaluation_seconds": round(time.perf_counter() - started, 2)}


def _rounded(scores: np.ndarray) -> list[float]:
    return [round(float(score), 4) for score in scores]


def _moved(
    place: Place, run: Run, speaker: Speaker, prompts: list[Any], answers: list[Answer]
) -> dict[str, Any]:
    """KL to the shared start, on the model's own answers."""
    reference = open_generator(place.checkpoint(f"start-seed{run.seed}")).to(speaker.device)
    ids = speaker.ids(prompts)
    batch = 32 if speaker.device == "cuda" else 4
    sums, counts = divergence(speaker.model, reference, ids, [one.ids for one in answers], batch)
    return {"per_answer": float(sums.mean()), "per_token": float(sums.sum() / counts.sum()),
            "each": _rounded(sums)}  # fmt: skip


def _forgot(place: Place, speaker: Speaker) -> dict[str, Any]:
    """Perplexity on a text that is not of this world."""
    text, reason = other_text(place.config.perplexity)
    if not text:
        return {"value": None, "on": place.config.perplexity, "reason": reason}
    most = place.config.evaluation.perplexity_tokens
    ids = speaker.renderer.fast.encode(text[: most * 8], add_special_tokens=False).ids[:most]
    return {"value": perplexity(speaker.model, ids), "on": place.config.perplexity, "tokens": len(ids)}


def other_text(name: str) -> tuple[str, str]:
    """The held-out text of a data set (its test split where it has one), or "" and why there is none."""
    try:
        source = find(name, "data")
    except InputError as error:
        return "", str(error)
    files = sorted(source.path.glob("wikitext-2*/test*.parquet"))
    if files:
        import pyarrow.parquet

        rows = [row for file in files for row in pyarrow.parquet.read_table(file)["text"].to_pylist()]
        return "".join(rows), ""
    from trainers.data import load_data

    splits = load_data(name).splits
    return "\n\n".join(splits.get("test", splits["train"]).texts), ""
