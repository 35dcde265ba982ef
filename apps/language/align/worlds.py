"""The two worlds that methods are compared in: their rows, cut into parts that share nothing.

Sentiment (as in section 6.1 of the DPO paper, with shop reviews): go on from the first words of a review, and
be pleased. Helpful: answer as people preferred (Anthropic's hh-rlhf). The parts are: what the policy is tuned
on, what the reward learns from, what the judge learns from, prompts that are watched during training, and
held-out prompts that nothing is chosen by.
"""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from runtimes.errors import InputError
from trainers.conversations import Prompt
from trainers.data import Dataset, Split, load_data
from trainers.files import read_json, write_json
from trainers.pairs import load_pairs
from trainers.reward import as_text

Row = dict[str, Any]
_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")


@dataclass(frozen=True)
class RowsConfig:
    """How many rows each part gets. Of a world with fewer rows, the policy gets what is left."""

    reward: int = 2800
    judge: int = 2800
    test: int = 500
    held_out: int = 400
    watched: int = 48
    policy: int = 3200
    prompt_words: int = 5
    answer_words: int = 35
    prompt_chars: int = 500
    answer_chars: int = 600
    seed: int = 0


@dataclass(frozen=True)
class World:
    """`sft`: rows {"prompt", "response"}. `pairs`: people's own, empty where answers are sampled and ranked.
    `reward`, `judge`, `test`: pairs, or (sentiment) rows {"text", "label"}. `held_out` and `watched`: rows
    {"prompt", "response"}, the response being a person's."""

    name: str
    sft: list[Row]
    pairs: list[Row]
    reward: list[Row]
    judge: list[Row]
    test: list[Row]
    held_out: list[Row]
    watched: list[Row]
    source: dict[str, Any] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        parts = ("sft", "pairs", "reward", "judge", "test", "held_out", "watched")
        return {part: len(getattr(self, part)) for part in parts}


def make_world(name: str, data: str, config: RowsConfig) -> World:
    """The world of that name from a data set; InputError where its rows do not suffice."""
    world = (sentiment if name == "sentiment" else helpful)(data, config)
    for part, count in world.counts().items():
        if not count and part != "pairs":
            raise InputError(f"{data}: no rows are left for {part}; ask for fewer in [rows]")
    return world


def save_world(world: World, path: Path) -> Path:
    write_json(path, asdict(world))
    return path


def open_world(path: Path) -> World:
    """InputError where the file is missing or is not what `save_world` wrote."""
    try:
        return World(**read_json(path))
    except TypeError as error:
        raise InputError(f"{path}: not a world ({error}); remove it and run again") from None


# sentiment


def sentiment(data: str, config: RowsConfig) -> World:
    """Reviews, as many with one to three stars (0) as with five (1); those with four are left out."""
    dataset = load_data(data)
    rows = list(_reviews(dataset, config))
    rng = np.random.default_rng(config.seed)
    by_label = [[row for row in rows if row["label"] == label] for label in (0, 1)]
    for half in by_label:
        rng.shuffle(half)
    mixed = [row for pair in zip(*by_label, strict=False) for row in pair]
    sizes = [config.reward, config.judge, config.test, config.held_out, config.watched, config.policy]
    reward, judge, test, held_out, watched, policy = _cut(mixed, sizes)
    seen = {row["prompt"] for row in policy + watched}
    return World(
        name="sentiment",
        sft=[_only(row, "prompt", "response") for row in policy],
        pairs=[],
        reward=[_only(row, "text", "label") for row in reward],
        judge=[_only(row, "text", "label") for row in judge],
        test=[_only(row, "text", "label") for row in test],
        held_out=[_only(row, "prompt", "response") for row in _new(held_out, seen)],
        watched=[_only(row, "prompt", "response") for row in watched],
        source=dataset.source,
    )


def _reviews(dataset: Dataset, config: RowsConfig) -> Iterable[Row]:
    """Reviews cut at the end of a sentence, so that an answer has an end that can be learned."""
    train, seen = dataset.splits["train"], set()
    stars = [int(name) for name in dataset.label_names]
    for text, label in zip(train.texts, train.labels, strict=True):
        short = whole_sentences(text, config.prompt_words + config.answer_words)
        words = short.split()
        if len(words) < config.prompt_words + 4 or short in seen or stars[label] == 4:
            continue
        seen.add(short)
        prompt = " ".join(words[: config.prompt_words])
        yield {
            "prompt": prompt,
            "response": short[len(prompt) :],  # begins with the space, as the tokens of a continuation do
            "text": short,
            "label": int(stars[label] == 5),
        }


def whole_sentences(text: str, most: int) -> str:
    """The longest start of a text that ends with a sentence and has at most `most` words; perhaps none."""
    plain, best = " ".join(text.split()), 0
    for found in _SENTENCE_END.finditer(plain):
        if plain[: found.end()].count(" ") >= most:
            break
        best = found.end()
    return plain[:best]


def labelled(rows: list[Row], test: list[Row], name: str) -> Dataset:
    """Rows {"text", "label"} as a data set that a classifier is trained on; a tenth is for validation."""
    splits = {"validation": rows[: len(rows) // 10], "train": rows[len(rows) // 10 :], "test": test}
    made = {k: Split([r["text"] for r in v], [r["label"] for r in v]) for k, v in splits.items()}
    return Dataset(name, ["displeased", "pleased"], made, {"name": name})


# helpful


def helpful(data: str, config: RowsConfig) -> World:
    """Pairs of answers of which people preferred one; all that open alike go into the same part."""
    found = load_pairs(data, part="helpful-*")
    by_opening: dict[str, list[Row]] = {}
    for row in (row for split in sorted(found.splits) for row in found.splits[split]):
        if _fits(row, config):
            by_opening.setdefault(row["prompt"][0]["content"], []).append(row)
    groups = [by_opening[key] for key in sorted(by_opening)]
    np.random.default_rng(config.seed).shuffle(groups)  # type: ignore[arg-type]
    sizes = [config.judge, config.test, config.held_out, config.watched, config.policy]
    judge, test, held_out, watched, policy = _cut_groups(groups, sizes)
    answered = [{"prompt": row["prompt"], "response": row["chosen"]} for row in policy]
    first = {as_text(row["prompt"]): row for row in reversed(held_out)}
    return World(
        name="helpful",
        sft=answered,
        pairs=policy,
        reward=policy[: config.reward],  # the reward learns from the very pairs that DPO and ORPO see
        judge=judge,
        test=test,
        held_out=[{"prompt": row["prompt"], "response": row["chosen"]} for row in first.values()],
        watched=[{"prompt": row["prompt"], "response": row["chosen"]} for row in watched],
        source=found.source,
    )


def _fits(pair: Row, config: RowsConfig) -> bool:
    answers = (pair["chosen"], pair["rejected"])
    return len(as_text(pair["prompt"])) <= config.prompt_chars and all(
        len(answer) <= config.answer_chars for answer in answers
    )


# parts


def _only(row: Row, *keys: str) -> Row:
    return {key: row[key] for key in keys}


def _cut(rows: list[Row], sizes: list[int]) -> list[list[Row]]:
    ends = np.cumsum([0, *sizes]).tolist()
    return [rows[a:b] for a, b in pairwise(ends)]


def _cut_groups(groups: list[list[Row]], sizes: list[int]) -> list[list[Row]]:
    """As `_cut`, but groups stay whole."""
    parts: list[list[Row]] = [[] for _ in sizes]
    at = 0
    for group in groups:
        while at < len(sizes) and len(parts[at]) >= sizes[at]:
            at += 1
        if at == len(sizes):
            break
        parts[at].extend(group)
    return parts


def _new(rows: list[Row], seen: set[str]) -> list[Row]:
    """Rows whose prompt stands nowhere else, each prompt once."""
    kept: dict[str, Row] = {}
    for row in rows:
        if row["prompt"] not in seen:
            kept.setdefault(row["prompt"], row)
    return list(kept.values())


def prompts_of(rows: list[Row]) -> list[Prompt]:
    return [row["prompt"] for row in rows]
