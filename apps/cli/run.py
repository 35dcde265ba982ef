import sys
from dataclasses import asdict
from json import dumps as to_json
from pathlib import Path
from typing import Annotated, Any

import typer

from apps.cli import generating
from apps.cli.options import Engine, Json, Threads, VariantName, emit
from runtimes.errors import InputError

MAX_LINES = 100_000
MAX_BYTES = 64 << 20


def run(
    bundle: Annotated[Path, typer.Argument(help="A bundle (folder or .zip), or a checkpoint.")],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; none: one a line from stdin.")] = None,
    passage: Annotated[
        Path | None, typer.Option(help="The text file that a reader's questions are about.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Which words spoke for the label.")] = False,
    top_k: Annotated[
        int | None,
        typer.Option(help="Labels to print (3); with a generator: draw from so many tokens, 0: all.", min=0),
    ] = None,
    chat: generating.Chat = False,
    system: generating.System = None,
    raw: generating.Raw = False,
    max_new_tokens: generating.MaxNewTokens = None,
    temperature: generating.Temperature = None,
    top_p: generating.TopP = None,
    min_p: generating.MinP = None,
    repetition_penalty: generating.Penalty = None,
    stop: generating.Stop = None,
    seed: generating.Seed = None,
    overflow: generating.Overflow = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="With a detector: watch points, one a line from stdin.")
    ] = False,
    file: Annotated[Path | None, typer.Option(help="With --stream: a CSV or JSON-lines file.")] = None,
    machine: Annotated[
        bool, typer.Option("--machine", help="With --stream: this machine's own load, once a second.")
    ] = False,
    learn: Annotated[
        int, typer.Option(help="With --stream: points that it takes for normal, at the start.")
    ] = 2_000,
    state: Annotated[
        Path | None, typer.Option(help="With --stream: a file to go on from after a restart.")
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(help="With --stream: pot (the default), quantile, spot (moves on), or a score."),
    ] = None,
    engine: Engine = None,
    variant: VariantName = None,
    threads: Threads = 1,
    json: Json = False,
) -> None:
    """Answer texts with a bundle, on the engine that is here.

    Questions with the bundle of a collection, or with a reader and a --passage; two or more texts with an
    embedder, which tells how near they are; prompts with a generator, whose answer comes as it is written.
    With a detector --stream, which watches one series for ever.
    """
    if stream or file is not None or machine or state is not None or threshold is not None:
        watched = (learn, state, threshold)
        _stream(bundle, stream, file, machine, watched, (engine, variant, threads), json)
        return
    asked = generating.Asked(
        chat, system, raw, max_new_tokens, temperature, top_k, top_p, min_p, repetition_penalty, stop, seed,
        overflow,
    )  # fmt: skip
    how = {"engine": engine, "variant": variant, "threads": threads}
    _run(bundle, texts, passage, explain, asked, how, json)


def _run(
    bundle: Path, texts: list[str] | None, passage: Path | None, explain: bool, asked: generating.Asked,
    how: dict[str, Any], json: bool,
) -> None:  # fmt: skip
    from apps.cli import asking
    from runtimes.bundle import NUMBERS
    from runtimes.generation import TASK
    from runtimes.load import load

    if asked.chat and texts:
        raise InputError("--chat takes its messages from the terminal or a pipe; leave the texts out")
    wanted = [] if asked.chat else texts or _lines()
    model = load(bundle, **how)
    task = model.describe()["task"]
    if (passage is None) == (task == "question-answering"):
        raise InputError(
            "a reader needs --passage FILE" if passage is None else f"--passage is for readers, not {task}"
        )
    if explain and task != "text-classification":
        raise InputError(f"--explain is for text-classification, not {task}")
    if task != TASK:
        generating.refuse(asked, task)
    if task == TASK:
        generating.ready(model, bundle)
        generating.chat(model, asked, json) if asked.chat else generating.write(model, wanted, asked, json)
    elif task == "answers":
        asking.tell(model, wanted, json)
    elif task == NUMBERS:
        raise InputError(f"{bundle}: a detector reads numbers; run it with --stream")
    elif passage is not None:
        asking.read(model, wanted, passage, json)
    elif task == "feature-extraction":
        asking.near(model, wanted, json)
    elif task == "text-classification":
        _classify(model, wanted, explain, asked.top_k or 3, json)
    else:
        raise InputError(f"{bundle}: task {task} is not answered here")


def _classify(model: Any, wanted: list[str], explain: bool, top_k: int, json: bool) -> None:
    answers = model(wanted, top_k=top_k)
    explained = [model.explain(text) for text in wanted] if explain else [None] * len(wanted)
    if json:
        emit([_row(*row) for row in zip(wanted, answers, explained, strict=True)])
        return
    for text, answer, reasons in zip(wanted, answers, explained, strict=True):
        scores = "  ".join(f"{label} {score:.3f}" for label, score in answer.scores.items())
        print(f"{scores}  │ {' '.join(text.split())[:80]}")
        if reasons is not None:
            best = sorted(reasons.words, key=lambda word: -abs(word.contribution))[:8]
            print("    " + "  ".join(f"{word.text} {word.contribution:+.3f}" for word in best))


def _stream(
    bundle: Path, stream: bool, file: Path | None, machine: bool,
    watched: tuple[int, Path | None, str | None], how: tuple[str | None, str | None, int], json: bool,
) -> None:  # fmt: skip
    """Refuse what does not go together, before anything is opened; then watch."""
    from apps.cli import streaming
    from apps.monitor.watch import Watch
    from apps.web.identity import digest_of
    from runtimes.bundle import NUMBERS
    from runtimes.load import load

    if not stream:
        raise InputError("--file, --machine, --state and --threshold go with --stream")
    if file is not None and machine:
        raise InputError("--file and --machine: watch one of them")
    learn, state, threshold = watched
    asked = streaming.threshold_of(threshold)
    engine, variant, threads = how
    model = load(bundle, engine=engine, variant=variant, threads=threads)
    task = model.describe()["task"]
    if task != NUMBERS:
        raise InputError(f"{bundle}: --stream is for {NUMBERS}, not {task}")
    watch = Watch(model, learn, state, asked, digest_of(bundle))
    told = streaming.stream(watch, file, machine, json)
    if json:
        print(to_json({"kind": "end", **told}))
        return
    late = f", {told['late']} left out as they came late" if told["late"] else ""
    print(f"{told['points']} points{late}" + ("" if told["learned"] else "; too few to learn what is normal"))


def _lines() -> list[str]:
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError("no text given; put it behind the bundle, or pipe one text a line")
    data = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InputError(f"stdin: over {MAX_BYTES >> 20} MB; give it in parts")
    try:
        lines = [line.strip() for line in data.decode("utf-8").split("\n")]
    except UnicodeDecodeError as error:
        raise InputError(f"stdin is not UTF-8 (byte {error.start}); convert it") from None
    found = [line for line in lines if line]
    if not found or len(found) > MAX_LINES:
        raise InputError(f"stdin: {len(found)} lines with text; give 1 to {MAX_LINES}")
    return found


def _row(text: str, answer: Any, reasons: Any) -> dict[str, Any]:
    row = {"text": text, **asdict(answer)}
    return row if reasons is None else {**row, "words": [asdict(word) for word in reasons.words]}
