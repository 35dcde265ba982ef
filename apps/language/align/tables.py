"""The comparison as Markdown, for the docs."""

from typing import Any

from apps.language.align.intervals import Interval
from apps.language.align.results import NAMES, Found, changed_rows, rows_of, verdicts
from device_bench.figures import NONE, number


def share(value: Interval | None) -> str:
    """A share with its 95% interval: 63.1% (58.0–67.9)."""
    if value is None:
        return NONE
    return f"{value.value:.1%} ({100 * value.low:.1f}–{100 * value.high:.1f})"


def ranged(value: Interval) -> str:
    return f"{value.value:.2f} ({value.low:.2f} to {value.high:.2f})"


def count(value: float | None) -> str:
    """Tokens and weights: 4.88 M, 12.3 k."""
    if value is None:
        return NONE
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{number(value / size)} {letter}"
    return f"{value:.0f}"


def percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.1%}"


def change(changed: dict[str, Any]) -> str:
    """What a run changed, in words."""
    words = {"peft": {"none": "all weights"}}
    told = [words.get(k, {}).get(v) or f"{k.replace('_', ' ')} {v:g}" for k, v in changed.items()]
    return ", ".join(told) or "as in the table"


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


RESULT_HEADS = ["Method", "Seeds", "Wins over SFT", "at equal length", "by words (TF-IDF)", "by the reward",
                "Judge", "Reward", "KL, nats/answer", "nats/token"]  # fmt: skip
COST_HEADS = ["Method", "Tokens", "Steps", "Time, s", "Peak memory, MB", "Trained", "Perplexity",
              "× base", "Length", "Ended", "distinct-2", "repeated 4-grams"]  # fmt: skip
VERDICT_HEADS = ["Pair", "Wins", "at equal length", "Ties", "p", "p (Holm)", "Verdict"]
CHANGE_HEADS = ["Method", "Changed", "Wins over SFT", "Reward", "KL, nats per answer", "Perplexity × base",
                "Length", "Time, s", "Peak memory, MB", "Trained"]  # fmt: skip


def result_cells(row: dict[str, Any]) -> list[str]:
    judge, linear, reward = (row["wins"][name] for name in ("judge", "linear", "reward"))
    return [
        row["name"], str(row["seeds"]), share(judge and judge.rate), share(judge and judge.at_equal_length),
        share(linear and linear.rate), share(reward and reward.rate), ranged(row["judge"]),
        ranged(row["reward"]), number(row["kl_answer"]), number(row["kl_token"]),
    ]  # fmt: skip


def cost_cells(row: dict[str, Any]) -> list[str]:
    tokens = count(row["tokens"])
    if row["rollout_tokens"]:
        tokens += f" + {count(row['rollout_tokens'])} rolled out"
    return [
        row["name"], tokens, count(row["steps"]), number(row["seconds"]), number(row["peak_memory_mb"]),
        count(row["trained_parameters"]), number(row["perplexity"]), number(row["worse"]),
        number(row["length"]), percent(row["ended"]), percent(row["distinct_2"]),
        percent(row["repetition_4"]),
    ]  # fmt: skip


def verdict_cells(row: dict[str, Any]) -> list[str]:
    won = row["wins"]
    pair = f"{NAMES[row['ours']]} over {NAMES[row['theirs']]}"
    return [pair, share(won.rate), share(won.at_equal_length), percent(won.ties), f"{row['p']:.4f}",
            f"{row['p_holm']:.4f}", row["verdict"]]  # fmt: skip


def change_cells(row: dict[str, Any]) -> list[str]:
    won = row["wins"]
    return [
        row["name"], change(row["changed"]), share(won and won.rate), ranged(row["reward"]),
        number(row["kl_answer"]), number(row["worse"]), number(row["length"]), number(row["seconds"]),
        number(row["peak_memory_mb"]), count(row["trained_parameters"]),
    ]  # fmt: skip


def markdown(found: Found) -> str:
    """All tables of a comparison."""
    rows = rows_of(found)
    label = f" ({found.config['label']})" if found.config["label"] else ""
    parts = [f"### {found.name}{label}", facts(found)]
    parts.append(table(RESULT_HEADS, [result_cells(row) for row in rows]))
    parts.append(table(COST_HEADS, [cost_cells(row) for row in rows]))
    parts.append(table(VERDICT_HEADS, [verdict_cells(row) for row in verdicts(found)]))
    changed = changed_rows(found)
    if changed:
        parts.append("One seed each; intervals over prompts only:")
        parts.append(table(CHANGE_HEADS, [change_cells(row) for row in changed]))
    if found.left_out:
        told = "; ".join(f"{name} ({why})" for name, why in sorted(found.left_out.items()))
        parts.append(f"Left out: {told}.")
    return "\n\n".join(parts) + "\n"


def facts(found: Found) -> str:
    """What was run on what, and how good reward and judges are on pairs that they have not seen."""
    config, judged = found.config, []
    for name, words in (("reward", "reward"), ("judge", "judge"), ("linear", "TF-IDF judge")):
        run = found.runs.get(name)
        if run:
            judged.append(f"{words} {run['pair_accuracy']:.1%}")
    pairs = next((run["pairs"] for run in found.runs.values() if run["kind"] == "reward"), 0)
    machine: dict[str, Any] = next(
        (run["machine"] for run in found.runs.values() if run["kind"] == "model"), {}
    )
    device = machine.get("gpu") or f"CPU ({machine.get('threads', '?')} threads a run)"
    seeds = ", ".join(map(str, config["seeds"]))
    held_out = found.world.get("rows", {}).get("held_out", "?")
    return (
        f"World: {config['world']}; T = {count(config['tokens'])} tokens, answers of at most "
        f"{config['answer_tokens']}, {held_out} held-out prompts, seeds {seeds}; {device}. "
        f"Right on {pairs} held-out pairs: {', '.join(judged) or NONE}."
    )
