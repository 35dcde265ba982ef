"""The model card: the bundle's README.md, generated from what was measured."""

from typing import Any

_USE = """```python
import edgewise

model = edgewise.load("{name}.bundle")
answer = model("your text")
print(answer.label, answer.score)
```"""


def card(manifest: dict[str, Any], parity: dict[str, Any]) -> str:
    """Markdown after Mitchell et al. 2019, "Model Cards for Model Reporting", cut to what is known."""
    data, limits = manifest["data"], manifest["limits"]
    sections = [
        f"# {manifest['name']}",
        f"{manifest['task']} · {len(manifest['labels'])} labels: {', '.join(manifest['labels'])}",
        "## Use",
        _USE.format(name=manifest["name"]),
        "## How well",
        _metrics(manifest["metrics"]),
        "## Variants, against the original",
        _variants(manifest, parity),
        "## Limits",
        f"Reads the first {limits['max_tokens']} tokens of a text. Answers one of the labels above whatever "
        "the text is about: a low score is the only sign of a text from elsewhere. "
        "Whoever uses the model inherits the leanings of its training data.",
        "## Where it comes from",
        _training(data, manifest.get("seed")),
        "\n".join(_step(step) for step in manifest["lineage"]),
    ]
    return "\n\n".join(sections) + "\n"


def _training(data: dict[str, Any], seed: Any) -> str:
    if data.get("name") is None:  # a model that somebody brought
        test = data.get("test", {})
        return (
            "Trained elsewhere: data, seed and steps of the training are not known. "
            f"Measured on `{test.get('name')}`, sha256 `{test.get('digest')}`. Steps since then:"
        )
    return (
        f"Data: `{data['name']}`, revision `{data.get('revision')}`, sha256 `{data.get('digest')}`. "
        f"Seed {seed}. Steps:"
    )


def _metrics(metrics: dict[str, Any]) -> str:
    test = metrics.get("test", {})
    if "accuracy" not in test:
        return "Not measured."
    return (
        f"Test split: accuracy {test['accuracy']:.4f}, macro F1 {test['macro']['f1']:.4f}"
        f" (n = {test.get('n', 'unknown')})."
    )


def _variants(manifest: dict[str, Any], parity: dict[str, Any]) -> str:
    lines = [
        "| variant | engine | MB | max abs error | cosine | same label | accuracy | original's | n |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, about in manifest["variants"].items():
        figures = parity["variants"][name]["sample"]
        lines.append(
            f"| {name} | {about['engine']} | {about['size_bytes'] / 1e6:.1f} | {figures['max_abs']:.2g} "
            f"| {figures['cosine']:.4f} | {figures['agreement']:.4f} | {figures['metric']['variant']:.4f} "
            f"| {figures['metric']['checkpoint']:.4f} | {figures['n']} |"
        )
    kept = [_kept(name, about["mixed"]) for name, about in manifest["variants"].items() if "mixed" in about]
    return "\n".join([*lines, *(f"\n{line}" for line in kept)])


def _kept(name: str, mixed: dict[str, Any]) -> str:
    """What stayed in higher precision in a mixed variant; see `compress.mixed`."""
    higher = ", ".join(f"{place} in {precision}" for place, precision in mixed["higher"].items())
    return (
        f"`{name}` is in {mixed['lowest']} but for: {higher or 'nothing'}. Chosen on calibration rows, where "
        f"{mixed['agreement']:.4f} of its labels are fp32's "
        f"(budget: at least {mixed['budget']['min_agreement']:g})."
    )


def _step(step: dict[str, Any]) -> str:
    settings = ", ".join(f"{key}={value}" for key, value in (step.get("config") or {}).items())
    return f"- {step['step']}: {settings} (from `{str(step.get('parent'))[:12]}`)"
