"""Checkpoint + rows → what each part costs and what it is worth: JSON, a table, a page, a picture."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from apps.rows import dataset_from, require_classifier
from compress.analyse import AnalyseConfig, check_analyse, costs
from compress.parts import parts_of
from compress.sensitivity import sensitivity
from device_bench import machine
from device_bench.figures import number
from runtimes.errors import InputError
from runtimes.files import require_replaceable, write_atomic, writing
from trainers.adopt import open_or_adopt
from trainers.checkpoint import Checkpoint
from trainers.finetune import relabel

SCHEMA = 1


def analyse(
    path: Path, data: str, out: Path | None = None, config: AnalyseConfig | None = None
) -> dict[str, Any]:
    """The result (schema: docs/analysis.md), measured on the validation split; nothing is trained.

    `path` is a checkpoint, or any folder with a classifier that `from_pretrained` opens.
    `out` ending in .html is the page; else a folder with analysis.html, analysis.png and analysis.json.
    Raises InputError for data, a checkpoint or an architecture that cannot serve before it measures.
    """
    from trainers.model import open_model

    config = config or AnalyseConfig()
    check_analyse(config)
    if out is not None:
        _check_place(out)
    with TemporaryDirectory(prefix="edgewise-") as folder:
        checkpoint = open_or_adopt(path, Path(folder))
        require_classifier(checkpoint)
        parts_of(open_model(checkpoint.path), path)
        result = _measure(path, checkpoint, data, config)
    if out is not None:
        _write(result, out)
    return result


def _measure(path: Path, checkpoint: Checkpoint, data: str, config: AnalyseConfig) -> dict[str, Any]:
    dataset = relabel(dataset_from(data), checkpoint.labels)
    split = dataset.splits.get("validation")
    if not split:
        raise InputError(f"{data}: no validation rows; prepare the data again")
    return {
        "schema": SCHEMA,
        "checkpoint": {"name": path.resolve().name, "digest": checkpoint.digest, "task": checkpoint.task},
        "data": {"name": dataset.name, "split": "validation", "rows": len(split)},
        "machine": machine.describe(),
        **costs(checkpoint, split.texts, config, weights=path),
        "sensitivity": sensitivity(checkpoint, split, config.rows, config.seed),
    }


def _check_place(out: Path) -> None:
    if out.suffix.lower() != ".html":
        require_replaceable(out)
    elif out.is_dir():
        raise InputError(f"{out}: is a folder; name a page, or a folder that does not end in .html")


def _write(result: dict[str, Any], out: Path) -> None:
    from apps.analysis_page import page
    from apps.analysis_plot import picture

    if out.suffix.lower() == ".html":
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, page(result).encode())
        return
    with writing(out) as folder:
        (folder / "analysis.html").write_text(page(result), encoding="utf-8")
        (folder / "analysis.png").write_bytes(picture(result))
        (folder / "analysis.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def effects_of(result: dict[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """The measured changes of one part, by change (int8, int4, cut)."""
    return {one["change"]: one for one in result["sensitivity"]["effects"] if one["part"] == name}


def drop(effect: dict[str, Any] | None) -> str:
    """Points of accuracy lost and their standard error; a star where that is more than noise."""
    if effect is None:
        return ""
    star = "*" if effect["signal"] else " "
    return f"{effect['drop'] * 100 + 0.0:.1f} ±{effect['se'] * 100:.1f}{star}"


def others(result: dict[str, Any]) -> list[str]:
    """Names of what was changed besides the single parts: whole layers, and all parts at once."""
    known = {row["name"] for row in result["parts"]}
    return list(dict.fromkeys(e["part"] for e in result["sensitivity"]["effects"] if e["part"] not in known))


def table(result: dict[str, Any]) -> str:
    """The table for a terminal: a line for each part, at most 100 characters wide."""
    heads = ["part", "M params", "MB", "MFLOPs", "ms", "time", "int8", "int4", "cut"]
    lines = [heads]
    for row in result["parts"]:
        cells = [row["name"], number(row["parameters"] / 1e6), number(row["bytes"] / 1e6)]
        cells += [number(row["flops"] / 1e6), number(row["ms"]), f"{row['share']['ms']:.1%}"]
        lines.append([*cells, *_drops(result, row["name"])])
    rest, whole = result["rest"], result["whole"]
    lines.append(["between parts", "", "", "", number(rest["ms"]), f"{rest['share']:.1%}", "", "", ""])
    lines += [
        [name, "", "", "", "", "", *_drops(result, name)] for name in others(result) if name[:3] != "all"
    ]
    total = ["whole", number(whole["parameters"] / 1e6), number(whole["bytes"] / 1e6)]
    total += [number(whole["flops"] / 1e6), number(whole["ms"]), "100%"]
    lines.append([*total, *_drops(result, "all parts")])
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    rows = [
        "  ".join(
            [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    ]
    return "\n".join([*(row.rstrip() for row in rows), "", notes(result)])


def _drops(result: dict[str, Any], name: str) -> list[str]:
    found = effects_of(result, name)
    return [drop(found.get(change)) for change in ("int8", "int4", "cut")]


def notes(result: dict[str, Any]) -> str:
    """What the figures mean and how sure they are, in three lines."""
    sense, sample = result["sensitivity"], result["sample"]
    base = sense["baseline"]
    return (
        f"int8, int4, cut: points of accuracy lost, ± standard error; * where 95% leaves out 0. "
        f"Baseline {base['value']:.4f} on {sense['n']} rows;\n"
        f"of the {len(sense['effects'])} changes about {len(sense['effects']) * 0.05:.0f} get a star by "
        f"chance. Weights are rounded in torch: no quantized file was made.\n"
        f"ms: batch {result['batch']}, {result['threads']} thread, {sample['n']} texts of "
        f"{sample['tokens_mean']:.0f} tokens, {result['rounds']} rounds; hooks added "
        f"{result['hooks_ms']:.2f} ms to {result['whole']['plain_ms']:.2f}."
    )
