"""Against an earlier run: what became slower, larger or wrong, variant by variant on the same device."""

from collections.abc import Sequence
from dataclasses import dataclass

from device_bench import figures
from device_bench.figures import NONE, Row, number, text

SLOWER = 0.05  # of the median, beyond the intervals of both runs
LARGER = {"size_bytes": 0.01, "peak_rss_mb": 0.1, "cold_start_ms": 0.2, "energy_mj": 0.1}
LESS_ACCURATE = 0.005
_NAMES = {"size_bytes": "file", "peak_rss_mb": "memory", "cold_start_ms": "cold start", "energy_mj": "energy"}


@dataclass(frozen=True)
class Change:
    """One variant on one device in both runs, or in one of them (the other row is None).

    `worse` and `better` name what changed beyond the noise: "latency", "accuracy", "file" …
    """

    now: Row | None
    before: Row | None
    worse: tuple[str, ...] = ()
    better: tuple[str, ...] = ()


def compare(rows: Sequence[Row], earlier: Sequence[Row]) -> list[Change]:
    """Rows of two runs matched by device, profile, bundle, variant, threads and tokenization.

    Devices that only one run has are left out; of several earlier rows of one kind the last started counts.
    Worse is: a median more than 5% above the earlier one with intervals that do not meet; accuracy down by
    more than half a point; a file 1%, memory or energy 10%, a cold start 20% larger. Better likewise. An
    engine's version does not matter.
    """
    old = {_key(row): row for row in sorted(earlier, key=lambda row: str(row.get("started") or ""))}
    changes = [Change(row, old[_key(row)], *_judge(row, old[_key(row)])) for row in rows if _key(row) in old]
    known, devices = {key[:2] for key in old}, {_key(row)[:2] for row in rows}
    seen = {_key(row) for row in rows}
    changes += [Change(row, None) for row in rows if _key(row) not in old and _key(row)[:2] in known]
    return changes + [Change(None, row) for key, row in old.items() if key not in seen and key[:2] in devices]


def _key(row: Row) -> tuple[str, ...]:
    device, profile = row["device"]["name"], row["simulated_profile"] or ""
    rest = (row["bundle"], row["variant"], row["threads"], row["tokenization"])
    return device, profile, *map(str, rest)


def _judge(now: Row, before: Row) -> tuple[tuple[str, ...], tuple[str, ...]]:
    worse, better = [], []
    if now["latency_ms"] and before["latency_ms"]:
        if _slower(now["latency_ms"], before["latency_ms"]):
            worse.append("latency")
        elif _slower(before["latency_ms"], now["latency_ms"]):
            better.append("latency")
    drop = (figures.accuracy(before) or 0) - (figures.accuracy(now) or 0)
    if now["metric"] and before["metric"] and abs(drop) > LESS_ACCURATE:
        (worse if drop > 0 else better).append("accuracy")
    for key, least in LARGER.items():
        if now[key] and before[key] and abs(now[key] / before[key] - 1) > least:
            (worse if now[key] > before[key] else better).append(_NAMES[key])
    return tuple(worse), tuple(better)


def _slower(one: Row, other: Row) -> bool:
    return bool(one["p50"] > other["p50"] * (1 + SLOWER) and one["ci95"][0] > other["ci95"][1])


def summary(changes: Sequence[Change]) -> str:
    """One line: how many variants became worse, and which."""
    worse = [change for change in changes if change.worse]
    pairs = sum(change.now is not None and change.before is not None for change in changes)
    if not pairs:
        return "nothing to compare: the earlier run has no row of the same device, bundle and variant"
    if not worse:
        return f"no regression in {pairs} rows that both runs have"
    named = "; ".join(f"{_name(change)}: {', '.join(change.worse)}" for change in worse[:5])
    more = f" and {len(worse) - 5} more" if len(worse) > 5 else ""
    return f"{len(worse)} of {pairs} rows became worse: {named}{more}"


def _name(change: Change) -> str:
    row = change.now or change.before or {}
    return f"{row['variant']}{'' if row['tokenization'] else ' (tokens ready)'}"


def history(changes: Sequence[Change]) -> str:
    """The section of the report: worse first, then better and new; what stayed the same is folded away."""
    order = sorted(changes, key=lambda change: (not change.worse, not change.better))
    told = [one for one in order if one.worse or one.better or None in (one.now, one.before)]
    same = [one for one in order if one not in told]
    kind = "bad" if any(change.worse for change in changes) else "good"
    folded = f"<details><summary>{len(same)} rows as before</summary>{_table(same)}</details>" if same else ""
    return (
        '<section class="history" id="history"><h2>Against the earlier run</h2>'
        f'<p class="{kind}">{text(summary(changes))}</p>'
        f'<div class="card">{_table(told)}{folded}</div></section>'
    )


def _table(changes: Sequence[Change]) -> str:
    if not changes:
        return ""
    heads = ("Variant", "Device", "p50 before", "p50 now", "Change", "Accuracy", "File, MB", "Verdict")
    head = "".join(f'<th scope="col"{" class=words" if n in (0, 1, 7) else ""}>{name}</th>'
                   for n, name in enumerate(heads))  # fmt: skip
    lines = "".join(_line(change, heads) for change in changes)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Changes"><table class="plain"><thead><tr>'
        f"{head}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _line(change: Change, heads: Sequence[str]) -> str:
    row = change.now or change.before or {}
    timed = "" if row["tokenization"] else "<small>tokens ready</small>"
    before, now = (figures.p50(one) if one else None for one in (change.before, change.now))
    percent = f"{(now / before - 1) * 100:+.1f}%".replace("-", "−") if now and before else NONE
    device = " · ".join(filter(None, (row["device"]["name"], row["simulated_profile"])))
    cells = [
        f'<span class="name {figures.colour(row)}">{text(row["variant"])}</span>{timed}',
        text(device),
        number(before),
        number(now),
        percent,
        _pair(figures.metric(change.before), figures.metric(change.now)),
        _pair(*(number(figures.megabytes(one["size_bytes"])) if one else NONE
                for one in (change.before, change.now))),
        _verdict(change),
    ]  # fmt: skip
    told = "".join(
        f'<td data-label="{head}"{" class=words" if n in (0, 1, 7) else ""}>{cell}</td>'
        for n, (head, cell) in enumerate(zip(heads, cells, strict=True))
    )
    return f'<tr class="{"worse" if change.worse else ""}">{told}</tr>'


def _pair(before: str, now: str) -> str:
    return now if before in (now, NONE) else f"{before} → {now}"


def _verdict(change: Change) -> str:
    if change.before is None:
        return '<span class="badge">new</span>'
    if change.now is None:
        return '<span class="badge">not run now</span>'
    shown = [f'<span class="badge bad">worse: {name}</span>' for name in change.worse]
    shown += [f'<span class="badge good">better: {name}</span>' for name in change.better]
    doubts = [
        f'<span class="badge warn">{name} run</span>'
        for name, doubt in (("quick", lambda row: row.get("quick")), ("busy", _busy))
        if any(doubt(row) for row in (change.now, change.before))
    ]
    return " ".join([*(shown or ['<span class="badge">same</span>']), *doubts])


def _busy(row: Row) -> bool:
    note = str(row["note"] or "")
    return "busy machine" in note or "do not quote" in note
