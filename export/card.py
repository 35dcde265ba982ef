"""The model card: the bundle's README.md, generated from what was measured."""

from typing import Any

_USE = """```python
import edgewise

model = edgewise.load("{name}.bundle")
{lines}
```"""
_LINES = {
    "text-classification": 'answer = model("your text")\nprint(answer.label, answer.score)',
    "question-answering": 'answer = model("your question", "the passage")\n'
    "print(answer.text if answer.found else None, answer.confidence)",
    "anomaly-detection": "profile = model.fit(values)  # (points, channels) of normal times\n"
    "scores = model.score(more, profile)\nprint(scores.score >= profile.threshold, scores.channels)",
    "text-generation": 'print(model("your prompt", max_new_tokens=64).text)\n'
    'for piece in model.stream([{"role": "user", "content": "your question"}]):\n    print(piece, end="")',
    "feature-extraction": 'vectors = model(["one text", "another"])\nprint(vectors @ vectors.T)',
}
_LIMITS = {
    "text-classification": "Reads the first {max_tokens} tokens of a text. Answers one of the labels above "
    "whatever the text is about: a low score is the only sign of a text from elsewhere.",
    "question-answering": "Reads a passage in windows of {max_tokens} tokens, and answers with words of the "
    "passage alone: what follows only from several places is not found.",
    "anomaly-detection": "Sees {window} points of one channel, asked once in {patch} points; at most "
    "{max_channels} channels. What is slower than a window, or shows only in how channels move together, is "
    "not seen. It must be fitted on normal points of a series before it can judge it.",
    "text-generation": "Reads and writes {max_tokens} tokens together. What it writes is probable, not "
    "true: a model of this size makes up facts, names and figures, and can repeat itself; check what "
    "matters.",
    "feature-extraction": "Reads the first {max_tokens} tokens of a text. Vectors of near texts are near; "
    "that says nothing about whether either is true.",
}


_GREEDY = (
    "Perplexity on held-out text, lower is better; same answer: the most probable next token behind a "
    "prompt; same text: what part of {tokens} greedy tokens is the original's before they part."
)


def card(manifest: dict[str, Any], parity: dict[str, Any]) -> str:
    """Markdown after Mitchell et al. 2019, "Model Cards for Model Reporting", cut to what is known."""
    data, limits = manifest["data"], manifest["limits"]
    sections = [
        f"# {manifest['name']}",
        _task(manifest),
        "## Use",
        _use(manifest),
        "## How well",
        _metrics(manifest["metrics"], manifest["task"]),
        "## Variants, against the original",
        _variants(manifest, parity),
        "## Limits",
        f"{_LIMITS[manifest['task']].format(**limits)} "
        "Whoever uses the model inherits the leanings of its training data.",
        "## Where it comes from",
        _training(data, manifest.get("seed")),
        "\n".join(_step(step) for step in manifest["lineage"]),
    ]
    return "\n\n".join(sections) + "\n"


def _use(manifest: dict[str, Any]) -> str:
    lines, generation = _LINES[manifest["task"]], manifest.get("generation") or {}
    if "generation" in manifest and generation.get("template") is None:
        lines = lines.splitlines()[0]  # it takes no messages
    said = _USE.format(name=manifest["name"], lines=lines)
    reason = str(generation.get("template_left_out") or "")
    if not reason:
        return said
    return (
        f"{said}\n\nIt goes on from a prompt as it is, and does not chat. {reason[:1].upper()}{reason[1:]}."
    )


def _task(manifest: dict[str, Any]) -> str:
    if manifest["task"] == "anomaly-detection":
        limits = manifest["limits"]
        return f"{manifest['task']} · windows of {limits['window']} points, forecasts of {limits['patch']}"
    if manifest["task"] != "text-classification":
        return str(manifest["task"])
    return f"{manifest['task']} · {len(manifest['labels'])} labels: {', '.join(manifest['labels'])}"


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


def _metrics(metrics: dict[str, Any], task: str) -> str:
    if task == "text-generation":
        return (
            "Perplexity on held-out text is below, the original's and each variant's. Answers were not rated."
        )
    test = metrics.get("test", {})
    if "exact_match" in test:
        return _reader(test)
    if "vus_pr" in test:
        return f"VUS-PR {test['vus_pr']:.4f} on injected anomalies (n = {test.get('n', 'unknown')})."
    if "accuracy" not in test:
        return "Not measured."
    return (
        f"Test split: accuracy {test['accuracy']:.4f}, macro F1 {test['macro']['f1']:.4f}"
        f" (n = {test.get('n', 'unknown')})."
    )


def _reader(test: dict[str, Any]) -> str:
    some, none = test["answerable"], test["unanswerable"]
    figures = f"Test split: exact match {test['exact_match']:.4f}, F1 {test['f1']:.4f} (n = {test['n']})"
    if none["n"]:
        figures += (
            f"; F1 {some['f1']:.4f} on the {some['n']} questions that have an answer, "
            f"{none['exact_match']:.4f} of the {none['n']} others rightly not answered"
        )
    return figures + "."


def _variants(manifest: dict[str, Any], parity: dict[str, Any]) -> str:
    samples = {name: parity["variants"][name]["sample"] for name in manifest["variants"]}
    names = [figures["metric"]["name"] for figures in samples.values() if "metric" in figures]
    judged = f" {names[0]} | original's |" if names else ""
    writes = any("greedy" in figures for figures in samples.values())
    judged += " same text |" if writes else ""
    lines = [
        f"| variant | engine | MB | max abs error | cosine | same answer |{judged} n |",
        "|---|---|---:|---:|---:|---:|"
        + ("---:|---:|" if names else "")
        + ("---:|" if writes else "")
        + "---:|",
    ]
    for name, about in manifest["variants"].items():
        figures, metric = samples[name], samples[name].get("metric")
        both = f" {metric['variant']:.4f} | {metric['checkpoint']:.4f} |" if metric else ""
        both += f" {figures['greedy']:.0%} |" if writes else ""
        lines.append(
            f"| {name} | {about['engine']} | {about['size_bytes'] / 1e6:.1f} | {figures['max_abs']:.2g} "
            f"| {figures['cosine']:.4f} | {figures['agreement']:.4f} |{both} {figures['n']} |"
        )
    kept = [_kept(name, about["mixed"]) for name, about in manifest["variants"].items() if "mixed" in about]
    kept += [_GREEDY.format(tokens=_tokens(samples))] if writes else []
    return "\n".join([*lines, *(f"\n{line}" for line in kept)])


def _tokens(samples: dict[str, dict[str, Any]]) -> int:
    return max(int(figures.get("tokens", 0)) for figures in samples.values())


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
