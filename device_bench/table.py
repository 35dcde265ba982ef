"""The report's table: a line for each row, sortable; on a phone each line becomes a card."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from device_bench import figures
from device_bench.figures import NONE, Row, number, percent, text
from device_bench.plot import facets

FIRST = "p50, ms"  # what the table is sorted by at first


@dataclass(frozen=True)
class _Column:
    """`value` is what the column sorts by, `shown` the cell's HTML. `best`: which end comes first."""

    name: str
    value: Callable[[Row], float | str | None]
    shown: Callable[[Row], str]
    best: str = "low"
    words: bool = False


def table(rows: Sequence[Row], keys: dict[int, str]) -> str:
    """The table as a card. `keys` (by id of the row) tie its lines to the marks in the drawings."""
    columns = _columns(rows)
    heads = "".join(
        f'<th scope="col" data-best="{c.best}"{" class=words" if c.words else ""}{_sorted(c)}>'
        f'<button type="button">{c.name}</button></th>'
        for c in columns
    )
    ordered = sorted(rows, key=lambda row: (figures.p50(row) is None, figures.p50(row) or 0))
    lines = "".join(_line(row, columns, keys[id(row)]) for row in ordered)
    options = "".join(
        f'<option value="{n}"{" selected" if _sorted(c) else ""}>{c.name}</option>'
        for n, c in enumerate(columns)
    )
    return (
        '<div class="card"><header><h3>All figures</h3>'
        f'<label class="sorter">Sort by<select>{options}</select></label></header>'
        '<div class="scroll" tabindex="0" role="region" aria-label="All figures"><table>'
        f"<thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div></div>"
    )


def _sorted(column: _Column) -> str:
    return ' aria-sort="ascending"' if column.name == FIRST else ""


def _line(row: Row, columns: Sequence[_Column], key: str) -> str:
    cells = []
    for column in columns:
        value = column.value(row)
        kind = " class=words" if column.words else ""
        raw = "" if value is None else text(value)
        cells.append(f'<td data-label="{column.name}" data-value="{raw}"{kind}>{column.shown(row)}</td>')
    timed = str(row["tokenization"]).lower()
    found = facets(figures.facets(row))
    return f'<tr{found} data-key="{text(key)}" data-tokenization="{timed}">{"".join(cells)}</tr>'


def _columns(rows: Sequence[Row]) -> list[_Column]:
    best = {id(row) for kind in (True, False) for row in _front(rows, kind)}

    def latency(key: str) -> Callable[[Row], float | None]:
        return lambda row: row["latency_ms"][key] if row["latency_ms"] else None

    def ratio(key: str) -> Callable[[Row], float | None]:
        return lambda row: (row.get("ratio_to") or {}).get(key)

    columns = [
        _Column(
            "Variant",
            lambda row: figures.label(row, rows),
            lambda row: _name(row, rows, id(row) in best),
            words=True,
        ),
        _Column("Engine", lambda row: row["engine"], _engine, words=True),
        _Column(
            "Precision",
            lambda row: row.get("precision"),
            lambda row: text(row.get("precision") or NONE),
            words=True,
        ),
        _Column(FIRST, latency("p50"), _p50),
        _Column("p90", latency("p90"), lambda row: number(latency("p90")(row))),
        _Column("p99", latency("p99"), lambda row: number(latency("p99")(row))),
        _Column("Speed", ratio("speed"), _speed, best="high"),
        _Column("Cold start, ms", lambda row: row["cold_start_ms"], lambda row: number(row["cold_start_ms"])),
        _Column("Peak RSS, MB", lambda row: row["peak_rss_mb"], lambda row: number(row["peak_rss_mb"])),
        _Column("Size, MB", lambda row: row["size_bytes"], _size),
        _Column(text(figures.metric_name(rows).capitalize()), figures.accuracy, _accuracy, best="high"),
        _Column("Parity", lambda row: (row["parity"] or {}).get("max_abs"), _parity),
    ]
    if any(row["energy_mj"] is not None for row in rows):
        columns.append(
            _Column("Energy, mJ", lambda row: row["energy_mj"], lambda row: number(row["energy_mj"]))
        )
    return columns


def _front(rows: Sequence[Row], kind: bool) -> list[Row]:
    return figures.front([row for row in rows if row["tokenization"] == kind])


def _name(row: Row, rows: Sequence[Row], on_front: bool) -> str:
    badges = [
        ("default", "good", bool(row.get("default"))),
        ("front", "", on_front),
        ("reference", "", figures.colour(row) == "torch"),
        ("tokens ready", "", not row["tokenization"]),
        ("quick", "warn", bool(row.get("quick")) and not all(other.get("quick") for other in rows)),
        ("emulated", "warn", row["emulated"]),
    ]
    shown = "".join(f'<span class="badge {kind}">{name}</span>' for name, kind, wanted in badges if wanted)
    name = f'<span class="name {figures.colour(row)}">{text(figures.label(row, rows))}</span>'
    return f'{name}<span class="badges">{shown}</span>'


def _engine(row: Row) -> str:
    return f"{text(row['engine'])}<small>{text(row['engine_version'] or '')}</small>"


def _p50(row: Row) -> str:
    if not row["latency_ms"]:
        return NONE
    return f"<b>{number(figures.p50(row))}</b><small>{figures.interval(row['latency_ms']['ci95'])}</small>"


def _speed(row: Row) -> str:
    ratio = row.get("ratio_to")
    return f"{number(ratio['speed'])}×<small>{figures.interval(ratio['ci95'])}</small>" if ratio else NONE


def _size(row: Row) -> str:
    ratio = row.get("ratio_to") or {}
    smaller = f"<small>{number(ratio['size'])}× smaller</small>" if ratio.get("size") else ""
    return number(figures.megabytes(row["size_bytes"])) + smaller


def _accuracy(row: Row) -> str:
    if not row["metric"]:
        return NONE
    margin = figures.margin(row)
    extra = f"±{margin * 100:.1f}, n={row['metric']['n']:,}" if margin else f"n={row['metric']['n']:,}"
    return f"{figures.metric(row)}<small>{extra}</small>"


def _parity(row: Row) -> str:
    if not row["parity"]:
        return NONE
    same = percent(row["parity"]["agreement"])
    return f"{number(row['parity']['max_abs'])}<small>{same} same</small>"
