"""The search of `edgewise compress --max-drop`, and what it prints."""

from pathlib import Path
from typing import Any

from apps.cli.options import emit


def run_search(checkpoint: Path, data: str, out: Path, json: bool, **options: Any) -> None:
    """Search, with `options` of `SearchConfig`, and print what was found."""
    from apps.search import SearchConfig, search

    result = search(checkpoint, data, out, SearchConfig(**options))
    emit(result) if json else print(summary(result))


def summary(result: dict[str, Any]) -> str:
    """The pick in a few lines."""
    row = next(row for row in result["trials"] if row["number"] == result["pick"])
    test, original = result["test"], result["original"]
    smaller = original["size_bytes"] / row["size_bytes"]
    lines = [
        f"pick       trial {row['number']}: {row['name']}",
        f"accuracy   validation {row['accuracy']:.4f} (original {original['accuracy']:.4f}), "
        f"test {test['accuracy']:.4f} (original {test['original']:.4f})",
        f"p50        {row['p50_ms']:.3g} ms, {row['speed']:.2f} times as fast as {original['reference']}",
        f"size       {row['size_bytes'] / 1e6:.3g} MB with tokenizer, {smaller:.1f} times smaller",
        f"Pareto set trials {', '.join(map(str, result['pareto']))} of {len(result['trials'])}",
    ]
    if not test["kept"]:
        lines.append(f"test rows: {test['drop']:.4f} lost, over --max-drop; validation rows decided")
    return "\n".join([*lines, f"{result['study']['folder']}/search.html", result["bundle"]])
