"""`load`: a bundle (or, on the server, a checkpoint) becomes something callable."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from runtimes import engines
from runtimes.bundle import NUMBERS, Bundle, open_bundle
from runtimes.codec import Codec
from runtimes.errors import BundleError, EngineError
from runtimes.generation import TASK as GENERATION
from runtimes.generation import check_generation, generation_of
from runtimes.text import Tokenizer

# Task → module with `open(session, tokenizer, labels, limits, about)`. Of numbers the tokenizer is None; a
# generator's session is a Decoder, its tokenizer a Codec.
TASKS = {
    "text-classification": "runtimes.tasks.classify",
    "question-answering": "runtimes.tasks.answer",
    "feature-extraction": "runtimes.tasks.embed",
    GENERATION: "runtimes.tasks.generate",
    NUMBERS: "runtimes.tasks.detect",
}
# Task of several models → module with `open_parts(bundle, models by role)`.
SEVERAL = {"answers": "runtimes.collection"}
CHECKPOINT = "checkpoint.json"
TOLD = ("calibration", "generation")  # what a model must know beside its files, where its task has it


def load(
    path: str | Path,
    engine: str | None = None,
    variant: str | None = None,
    threads: int | None = None,
    providers: Sequence[str] | None = None,
    allow_fallback: bool = False,
) -> Any:
    """Open a bundle as a model: `load("news.bundle")("text")`.

    Without `engine` or `variant` the bundle's default for the engines that are installed is taken; with
    one, that one or an error. `threads` defaults to the number of cores. `providers` are execution
    providers (ONNX Runtime) or delegates (LiteRT); one that is not really used is an error unless
    `allow_fallback`. A checkpoint folder opens in PyTorch, as the reference.

    Raises BundleError, EngineError.
    """
    path = Path(path)
    threads = os.cpu_count() or 1 if threads is None else threads
    if not isinstance(threads, int) or not 1 <= threads <= 1024:
        raise EngineError(f"threads must be between 1 and 1024, not {threads!r}")
    how: dict[str, Any] = {"threads": threads, "allow_fallback": allow_fallback}
    if providers:
        how["providers"] = list(providers)
    if (path / CHECKPOINT).is_file():
        return _open_checkpoint(path, engine, variant, how)
    bundle = open_bundle(path, parts=True)
    if not bundle.parts:
        return _open_model(bundle, engine, variant, how)
    if variant is not None:
        raise EngineError(f"{path}: holds several models, each with variants of its own; name none")
    task = task_module(bundle.task, SEVERAL)
    models = {role: _open_model(bundle.part(role), engine, None, how) for role in bundle.parts}
    return task.open_parts(bundle, models)


def _open_model(bundle: Bundle, engine: str | None, variant: str | None, how: dict[str, Any]) -> Any:
    name = choose(bundle, engine, variant)
    about = bundle.variants[name]
    task_module(bundle.task)  # an unknown one is refused before an engine starts
    engine_module = engines.module(about["engine"], bundle.task == GENERATION)
    session = engine_module.open(bundle.source(about["file"]), variant=about, **how)
    return _with_session(bundle, session, {"variant": name, "precision": about["precision"]})


class _NoEngine:
    """Stands where a session would: what is computed from outputs needs none."""

    lengths = None

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        raise EngineError("this model was opened without an engine")

    def begin(self) -> Any:
        return self.run({})

    def describe(self) -> dict[str, Any]:
        return {}


def reference(bundle: Bundle) -> Any:
    """The bundle's model without an engine: it tells verdicts and figures of outputs from elsewhere."""
    return _with_session(bundle, _NoEngine(), {})


def _with_session(bundle: Bundle, session: Any, told: dict[str, Any]) -> Any:
    tokenizer = _tokenizer(bundle.task, lambda: bundle.read("tokenizer.json"), bundle.limits)
    about = {"bundle": bundle.name, "task": bundle.task, **told}
    about |= {key: bundle.manifest[key] for key in TOLD if key in bundle.manifest}
    return task_module(bundle.task).open(session, tokenizer, bundle.labels, bundle.limits, about)


def _tokenizer(task: str, read: Callable[[], bytes], limits: dict[str, int]) -> Any:
    if task == NUMBERS:
        return None
    return (
        Codec.from_bytes(read()) if task == GENERATION else Tokenizer.from_bytes(read(), limits["max_tokens"])
    )


def choose(bundle: Bundle, engine: str | None = None, variant: str | None = None) -> str:
    """The variant to take. Raises EngineError where it does not exist or no engine for it is installed."""
    if variant is not None:
        if variant not in bundle.variants:
            raise EngineError(f"{bundle.path}: no variant {variant!r}; it has {', '.join(bundle.variants)}")
        if engine not in (None, bundle.variants[variant]["engine"]):
            raise EngineError(
                f"{bundle.path}: variant {variant!r} runs on {bundle.variants[variant]['engine']}, "
                f"not {engine}"
            )
        return variant
    if engine is not None:
        if engine not in bundle.defaults:
            raise EngineError(
                f"{bundle.path}: no variant for engine {engine!r}; it has {', '.join(bundle.variants)}"
            )
        return bundle.defaults[engine]
    for name in bundle.defaults.values():  # "*" stands first
        if engines.installed(bundle.variants[name]["engine"]):
            return name
    wanted = sorted({about["engine"] for about in bundle.variants.values()})
    raise EngineError(
        f"{bundle.path}: no engine for it is installed; "
        + " or ".join(engines.INSTALL[name] for name in wanted)
    )


def task_module(task: str, known: Mapping[str, str] = TASKS) -> Any:
    """The module that owns a task's pre- and post-processing. Raises BundleError for an unknown one."""
    if task not in known:
        raise BundleError(
            f"task {task!r} is not known to this edgewise ({', '.join(known)}); upgrade edgewise"
        )
    return import_module(known[task])


def _open_checkpoint(path: Path, engine: str | None, variant: str | None, how: dict[str, Any]) -> Any:
    if engine not in (None, "torch") or variant not in (None, "pytorch-fp32"):
        raise EngineError(f"{path}: a checkpoint runs on torch only; build a bundle for {engine or variant}")
    try:
        meta = json.loads((path / CHECKPOINT).read_bytes())
        task, labels, limits = meta["task"], meta["labels"], meta["limits"]
        tokenizer = _tokenizer(task, (path / "tokenizer.json").read_bytes, limits)
        if task == GENERATION:
            meta = {"generation": generation_of(path), **meta}
            check_generation(meta["generation"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path}: damaged checkpoint ({error!r}); train it again") from None
    session = engines.module("torch", task == GENERATION).open(path, variant={}, **how)
    about = {"bundle": path.name, "task": task, "variant": "pytorch-fp32", "precision": "fp32"}
    about |= {key: meta[key] for key in TOLD if key in meta}
    return task_module(task).open(session, tokenizer, labels, limits, about)
