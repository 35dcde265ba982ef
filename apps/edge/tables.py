"""The ladder's measurements as markdown: mean over the seeds, with the range."""

from statistics import mean
from typing import Any

from apps.edge.rivals import BERT, OPTIMUM, TEACHER

Found = dict[int, dict[str, Any]]


def ladder(found: Found) -> str:
    """One line an entry: from the original through each step to the smallest."""
    names = list(names_of(found))
    lines = [
        "| model | accuracy | p50 ms | × BERT-base | × teacher | × Optimum int8 | MB "
        "| × smaller than BERT-base | seeds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        rows = _rows(found, name)
        base = _rows(found, BERT, name)
        cells = (
            name,
            "" if rows[0]["accuracy"] is None else spread([row["accuracy"] for row in rows], 4),
            spread([row["latency_ms"]["p50"] for row in rows], 2),
            *(spread([row["times"][rival][0] for row in rows], 1) for rival in (BERT, TEACHER, OPTIMUM)),
            spread([row["bytes"] / 1e6 for row in rows], 2),
            spread([b["bytes"] / row["bytes"] for b, row in zip(base, rows, strict=True)], 0),
            str(len(rows)),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def formats(found: Found) -> str:
    """Every format of the teacher as it is, in the first seed: what docs/quantization.md shows."""
    seed, entries = next((seed, one["entries"]) for seed, one in found.items())
    teacher = entries[TEACHER]
    lines = [
        f"| variant (seed {seed}) | p50 ms | times as fast as PyTorch eager (95%) | MB | points lost |",
        "|---|---:|---:|---:|---:|",
    ]
    for about in entries.values():
        if about["rung"] in ("quantized only", "quantized otherwise"):
            lost = 100 * (teacher["accuracy"] - about["accuracy"])
            times = _interval(about["times"][TEACHER])
            p50, size = about["latency_ms"]["p50"], about["bytes"] / 1e6
            lines.append(f"| `{about['variant']}` | {p50:.2f} | {times} | {size:.1f} | {lost:.2f} |")
    return "\n".join(lines)


def pruning(found: Found) -> str:
    """What structured pruning buys at each share, against the whole model as the same variant."""
    lines = [
        "| encoder kept | variant | points lost to the teacher | × as fast as the whole model "
        "| file, share of it | seeds |",
        "|---|---|---|---|---|---|",
    ]
    for name, about in names_of(found).items():
        if not about["rung"].startswith("pruned"):
            continue
        whole = f"quantized only, {about['variant']}"
        rows, before, teacher = (_rows(found, one, name) for one in (name, whole, TEACHER))
        pairs = list(zip(before, rows, strict=True))
        cells = (
            about["rung"].removeprefix("pruned to "),
            about["variant"],
            spread(
                [100 * (t["accuracy"] - row["accuracy"]) for t, row in zip(teacher, rows, strict=True)], 2
            ),
            spread([b["latency_ms"]["p50"] / row["latency_ms"]["p50"] for b, row in pairs], 2),
            spread([row["bytes"] / b["bytes"] for b, row in pairs], 2),
            str(len(rows)),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def claims(found: Found) -> str:
    """Per seed the fastest variant of each rung against its teacher and Optimum's int8; all files counted."""
    lines = [
        "| seed | fastest variant | points lost to the teacher | share of its accuracy | × BERT-base (95%) "
        "| × teacher (95%) | × Optimum int8 (95%) | MB with tokenizer "
        "| × smaller than BERT-base, Optimum int8 | n |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for seed, one in found.items():
        entries = one["entries"]
        teacher, base, rival = (entries[name] for name in (TEACHER, BERT, OPTIMUM))
        for rung in dict.fromkeys(about["rung"] for about in entries.values() if "variant" in about):
            name = min(
                (name for name, about in entries.items() if about["rung"] == rung),
                key=lambda name: entries[name]["latency_ms"]["p50"],
            )
            about = entries[name]
            size = about["bytes"] + about["tokenizer_bytes"]
            smaller = [(e["bytes"] + e["tokenizer_bytes"]) / size for e in (base, rival)]
            times = [_interval(about["times"][name]) for name in (BERT, TEACHER, OPTIMUM)]
            lines.append(
                f"| {seed} | {name} | {100 * (teacher['accuracy'] - about['accuracy']):+.2f} "
                f"| {about['accuracy'] / teacher['accuracy']:.2%} | {' | '.join(times)} "
                f"| {size / 1e6:.2f} | {smaller[0]:.0f}, {smaller[1]:.1f} | {about['n']} |"
            )
    return "\n".join(lines)


def _interval(times: list[float]) -> str:
    return f"{times[0]:.1f} ({times[1]:.1f} to {times[2]:.1f})"


def names_of(found: Found) -> dict[str, dict[str, Any]]:
    """Every entry that any seed has, in the order of the ladder, with what the first of them says of it."""
    longest = max(found.values(), key=lambda one: len(one["entries"]))["entries"]
    rest = {name: about for one in found.values() for name, about in one["entries"].items()}
    return {**longest, **{name: about for name, about in rest.items() if name not in longest}}


def _rows(found: Found, name: str, beside: str | None = None) -> list[dict[str, Any]]:
    """The entry in each seed that has it, and `beside` too."""
    entries = [one["entries"] for one in found.values()]
    return [one[name] for one in entries if name in one and (beside is None or beside in one)]


def spread(values: list[float], digits: int) -> str:
    low, high = min(values), max(values)
    middle = f"{mean(values):.{digits}f}"
    return middle if high - low < 10**-digits else f"{middle} ({low:.{digits}f} to {high:.{digits}f})"
