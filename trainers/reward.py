"""Rewards: how good an answer is, learned from preference pairs (Bradley–Terry) or from stars (sentiment).

A reward is a checkpoint whose score is called with prompts and answers. There are three kinds: a regressor
on preference pairs, a classifier whose margin counts, and TF-IDF with linear weights, a judge of another
kind. None of them is a measure of truth: see docs/language/align.md.
"""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer as FastTokenizer
from torch.nn import functional as F

from runtimes.errors import InputError
from runtimes.files import writing
from trainers.checkpoint import Checkpoint, open_checkpoint, seal
from trainers.conversations import Prompt
from trainers.data import Dataset
from trainers.finetune import MAX_BATCH, MAX_CHARS, TrainConfig, finetune, parents
from trainers.linear import TASK as LINEAR
from trainers.linear import linear_scores
from trainers.reward_config import RewardConfig, check_reward
from trainers.sources import find

TASK = "reward"
# (prompts, answers) -> float64 (n,), higher is better
Reward = Callable[[Sequence[Prompt], Sequence[str]], np.ndarray]


def train_reward(
    pairs: Sequence[dict[str, Any]], held_out: Sequence[dict[str, Any]], base: Path | str, out: Path,
    config: RewardConfig | None = None,
) -> Checkpoint:  # fmt: skip
    """A regressor on pairs {"prompt", "chosen", "rejected"} by the loss of Bradley and Terry (1952).

    -log sigmoid(score(chosen) - score(rejected)), as in Christiano et al. (2017). Its accuracy on the pairs
    of `held_out` is in metrics["test"]. InputError for no pairs, settings that cannot work, and losses or
    scores that are not finite; then nothing new stands at `out`.
    """
    config = config or RewardConfig()
    check_reward(config)
    if not pairs or not held_out:
        raise InputError("reward: no preference pairs; give at least one to train on and one to test on")
    import transformers

    from trainers.model import check_max_tokens, open_model, save_model

    source = find(str(base), "model")
    transformers.set_seed(config.seed)
    model = open_model(source.path, ["reward"])
    check_max_tokens(model, config.max_tokens)
    encode = _encoder(source.path, config.max_tokens, config.prompt_tokens)
    losses = _fit(model, encode, pairs, config)
    parent, lineage = parents(source)
    with writing(out) as new:
        save_model(model, source.path, new, config.max_tokens)
        limits = {"max_tokens": config.max_tokens, "max_chars": MAX_CHARS, "max_batch": MAX_BATCH}
        step = {"step": "reward", "config": asdict(config), "parent": parent}
        meta = {
            "task": TASK, "labels": ["reward"], "limits": limits, "data": {"pairs": len(pairs)},
            "metrics": {"training": {"loss": losses}}, "seed": config.seed, "lineage": [*lineage, step],
            "prompt_tokens": config.prompt_tokens,
        }  # fmt: skip
        tested(seal(new, meta), held_out)
    return open_checkpoint(out)


def train_sentiment(
    dataset: Dataset, base: Path | str, out: Path, config: TrainConfig | None = None
) -> Checkpoint:
    """A classifier of texts whose labels run from bad to good; its margin, last label less first, is the
    reward. Accuracy on all pairs of a better and a worse text of the test split is in metrics["test"]."""
    checkpoint = finetune(dataset, base, out, config)
    test = dataset.splits["test"]
    better = [text for text, label in zip(test.texts, test.labels, strict=True) if label]
    worse = [text for text, label in zip(test.texts, test.labels, strict=True) if not label]
    most = min(len(better), len(worse))
    rows = zip(better[:most], worse[:most], strict=True)
    try:
        return tested(checkpoint, [{"prompt": "", "chosen": a, "rejected": b} for a, b in rows])
    except InputError:  # what scores nothing must not be taken for a reward later
        shutil.rmtree(out, ignore_errors=True)
        raise


def tested(checkpoint: Checkpoint, pairs: Sequence[dict[str, Any]]) -> Checkpoint:
    """The checkpoint with its accuracy on held-out pairs beside its other figures."""
    metrics = dict(checkpoint.meta["metrics"])
    accuracy = pair_accuracy(open_reward(checkpoint.path), pairs)
    metrics["test"] = {**metrics.get("test", {}), "pair_accuracy": accuracy, "pairs": len(pairs)}
    return seal(checkpoint.path, {**checkpoint.meta, "metrics": metrics})


def pair_accuracy(reward: Reward, pairs: Sequence[dict[str, Any]]) -> float:
    """Share of pairs whose chosen answer has the higher reward; equal ones count half."""
    prompts = [pair["prompt"] for pair in pairs]
    chosen = reward(prompts, [pair["chosen"] for pair in pairs])
    rejected = reward(prompts, [pair["rejected"] for pair in pairs])
    return float(np.mean((chosen > rejected) + 0.5 * (chosen == rejected)))


def open_reward(path: Path | str, device: str = "auto") -> Reward:
    """The reward of a checkpoint of one of the three kinds. InputError for a checkpoint of another task.

    The reward raises InputError where a score is not finite. Its `digest` is the checkpoint's.
    """
    checkpoint = open_checkpoint(path)
    if checkpoint.task == LINEAR:
        score = linear_scores(checkpoint)
    elif checkpoint.task in (TASK, "text-classification"):
        score = _neural(checkpoint, device)
    else:
        raise InputError(f"{path}: a checkpoint of task {checkpoint.task}, which gives no reward")

    def reward(prompts: Sequence[Prompt], answers: Sequence[str]) -> np.ndarray:
        values = np.asarray(score(prompts, answers), np.float64) if len(answers) else np.zeros(0)
        if not np.isfinite(values).all():
            first = int(np.flatnonzero(~np.isfinite(values))[0])
            raise InputError(f"{path}: the reward of answer {first} is {values[first]}; train it again")
        return values

    reward.digest = checkpoint.digest  # type: ignore[attr-defined]
    return reward


def as_text(prompt: Prompt) -> str:
    """A prompt as plain text: a conversation with its speakers' names."""
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)


def _encoder(path: Path, max_tokens: int, prompt_tokens: int) -> Callable[[Prompt, str], tuple[list, list]]:
    """(prompt, answer) -> ids and token types: [CLS] end of the prompt [SEP] start of the answer [SEP]."""
    fast = FastTokenizer.from_file(str(path / "tokenizer.json"))
    fast.no_padding()
    fast.no_truncation()
    start, end = fast.token_to_id("[CLS]"), fast.token_to_id("[SEP]")
    if start is None or end is None:
        raise InputError(f"{path}: a reward needs an encoder with [CLS] and [SEP], such as MiniLM")

    def encode(prompt: Prompt, answer: str) -> tuple[list[int], list[int]]:
        asked = fast.encode(as_text(prompt), add_special_tokens=False).ids[-prompt_tokens:]
        said = fast.encode(answer, add_special_tokens=False).ids[: max_tokens - 3 - len(asked)]
        return [start, *asked, end, *said, end], [0] * (len(asked) + 2) + [1] * (len(said) + 1)

    return encode


def _batch(rows: Sequence[tuple[list[int], list[int]]], device: str) -> dict[str, torch.Tensor]:
    longest = max(len(ids) for ids, _ in rows)
    ids, types, mask = (torch.zeros(len(rows), longest, dtype=torch.long) for _ in range(3))
    for i, (row, kinds) in enumerate(rows):
        ids[i, : len(row)], types[i, : len(row)] = torch.tensor(row), torch.tensor(kinds)
        mask[i, : len(row)] = 1
    named = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
    return {name: tensor.to(device) for name, tensor in named.items()}


def _fit(model: Any, encode: Any, pairs: Sequence[dict[str, Any]], config: RewardConfig) -> list[float]:
    """Train in place; gives the mean loss of each tenth of the run."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mixed = device == "cuda" and config.precision == "auto"
    rows = [tuple(encode(p["prompt"], p[side]) for side in ("chosen", "rejected")) for p in pairs]
    steps = -(-len(rows) // config.batch_size) * config.epochs
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    warm = max(1, round(config.warmup * steps))
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
    )
    losses = []
    for epoch in range(config.epochs):
        order = np.random.default_rng([config.seed, epoch]).permutation(len(rows))
        for first in range(0, len(order), config.batch_size):
            taken = [rows[i] for i in order[first : first + config.batch_size]]
            batch = _batch([row for side in zip(*taken, strict=True) for row in side], device)
            with torch.autocast(device, torch.bfloat16, enabled=mixed):
                chosen, rejected = model(**batch).logits.float().squeeze(-1).chunk(2)
            loss = -F.logsigmoid(chosen - rejected).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            rate.step()
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise InputError(
                    f"reward: the loss is not finite in step {len(losses)}; lower learning_rate = "
                    f"{config.learning_rate} (no checkpoint was written)"
                )
    return [float(part.mean()) for part in np.array_split(np.asarray(losses), min(10, len(losses)))]


def _neural(checkpoint: Checkpoint, device: str) -> Reward:
    """Scores in fp32, in batches of like length; the model stays on the device between calls."""
    from trainers.model import open_model

    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    model = open_model(checkpoint.path).to(where).eval()
    most, paired = checkpoint.limits["max_tokens"], checkpoint.task == TASK
    encode = _encoder(checkpoint.path, most, checkpoint.meta.get("prompt_tokens", 0)) if paired else None
    joined = _joiner(checkpoint) if encode is None else None

    def score(prompts: Sequence[Prompt], answers: Sequence[str]) -> np.ndarray:
        rows = [(encode or joined)(p, a) for p, a in zip(prompts, answers, strict=True)]  # type: ignore[misc]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
        values = np.zeros(len(rows))
        with torch.inference_mode():
            for first in range(0, len(order), 64):
                taken = order[first : first + 64]
                logits = model(**_batch([rows[i] for i in taken], where)).logits.float().cpu().numpy()
                values[taken] = logits[:, 0] if paired else logits[:, -1] - logits[:, 0]
        return values

    return score


def _joiner(checkpoint: Checkpoint) -> Callable[[Prompt, str], tuple[list[int], list[int]]]:
    """(prompt, answer) -> ids of both as the one text that a classifier of texts reads."""
    from trainers.model import open_tokenizer

    tokenizer = open_tokenizer(checkpoint.path, checkpoint.limits["max_tokens"])

    def encode(prompt: Prompt, answer: str) -> tuple[list[int], list[int]]:
        ids = list(tokenizer.encode([f"{as_text(prompt)} {answer}"])[0])
        return ids, [0] * len(ids)

    return encode
