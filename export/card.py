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
    return "\n".join(lines)


def _step(step: dict[str, Any]) -> str:
    settings = ", ".join(f"{key}={value}" for key, value in (step.get("config") or {}).items())
    return f"- {step['step']}: {settings} (from `{str(step.get('parent'))[:12]}`)"
