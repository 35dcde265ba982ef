"""A model file that a user brings becomes a variant: looked at, adapted to the bundle's contract, proved.

The contract (docs/bundle.md): int inputs `input_ids`, and perhaps `attention_mask` and `token_type_ids`, of
shape (batch, length); one float output of logits (batch, labels). What differs is adapted by nodes at the
border of the graph; the graph itself stays as it is, and its answers are compared with those of the user's
own file. All of it runs in a child process: an engine may crash on a damaged file.
"""

import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.child import in_child
from export.variant import Variant, about
from export.variants import open_variant
from runtimes.bundle import MAX_TOKENS as BUNDLE_TOKENS
from runtimes.errors import EngineError, InputError
from runtimes.files import writing
from trainers.files import write_json

MAX_MODEL_BYTES = (2 << 30) - 1  # the most that one protobuf or flatbuffer holds
MIN_TOKENS = 4
# Where neither the graph nor the tokenizer says how much is read.
MAX_TOKENS = 128
# Lengths of a graph that takes any length but one text at a time.
LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
KINDS = {".onnx": "onnx", ".tflite": "tflite", ".keras": "keras"}
# Below this a probability counts as this: its logarithm must be finite.
FLOOR = 1e-9

_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz")
_TORCH = (
    "a pickle, which is never opened here; where it was trained, save it with torch.onnx.export(...) "
    "and bring the .onnx"
)
_ADVICE = {
    ".h5": "the old Keras format; load it where it was made, model.save('model.keras'), and bring that",
    ".safetensors": "weights without their graph; export the checkpoint folder: edgewise export CHECKPOINT",
    ".gguf": "a llama.cpp model; bring .onnx, .tflite, .keras or a SavedModel folder",
    ".pb": "a file of a SavedModel; name its folder",
    ".ort": "ONNX Runtime's own format; bring the .onnx that it was made from",
    **dict.fromkeys((".hdf5", ".hdf"), "the old Keras format; save it as .keras and bring that"),
    **dict.fromkeys(_PICKLES, _TORCH),
}
Ask = Callable[[dict[str, np.ndarray]], np.ndarray]
_OURS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class Adopted:
    """The variant, and what was seen: max_tokens, inputs (theirs → ours), output, probabilities, crossed."""

    variant: Variant
    max_tokens: int
    seen: dict[str, Any]


def kind_of(source: Path) -> str:
    """onnx, tflite, keras or savedmodel. Raises InputError for anything else, with what to do about it."""
    if source.is_dir():
        if (source / "saved_model.pb").is_file():
            return "savedmodel"
        if (source / "config.json").is_file() or (source / "checkpoint.json").is_file():
            raise InputError(f"{source}: a checkpoint folder; export it as: edgewise export {source} --out …")
        raise InputError(f"{source}: no saved_model.pb in it, so not a SavedModel; name the model itself")
    if not source.is_file():
        raise InputError(f"{source}: no such model; give a .onnx, .tflite or .keras file, or a SavedModel/")
    suffix = source.suffix.lower()
    if suffix not in KINDS:
        advice = _ADVICE.get(
            suffix, "not a kind that is known; bring .onnx, .tflite, .keras or a SavedModel/"
        )
        raise InputError(f"{source}: {advice}")
    size = source.stat().st_size
    if not 16 <= size <= MAX_MODEL_BYTES:
        raise InputError(f"{source}: {size} bytes; a model file has from 16 bytes to 2 GB")
    _refuse_disguised(source, suffix)
    return KINDS[suffix]


def _refuse_disguised(source: Path, suffix: str) -> None:
    with source.open("rb") as stream:
        head = stream.read(8)
    if (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05") or (
        suffix != ".keras" and head[:2] == b"PK"
    ):
        raise InputError(f"{source}: {_TORCH}")
    if head.startswith(b"\x89HDF"):
        raise InputError(f"{source}: {_ADVICE['.h5']}")
    if suffix == ".keras" and not zipfile.is_zipfile(source):
        raise InputError(f"{source}: not a whole .keras file (a zip archive); copy or save it again")


def adopt(
    source: Path, labels: int, largest_id: int, out: Path, max_tokens: int | None, fallback: int = MAX_TOKENS
) -> Adopted:
    """Write the variant folder that the .onnx or .tflite file `source` makes.

    `labels` and `largest_id` (of the tokenizer) are what it must fit; `max_tokens` what is asked for, and
    `fallback` what is taken where the graph takes any length.
    Raises InputError where the file is damaged or does not fit, with what to do.
    """
    from export.adopt_onnx import adopt_onnx
    from export.adopt_tflite import adopt_tflite

    function: Callable[..., Any] = {"onnx": adopt_onnx, "tflite": adopt_tflite}[kind_of(source)]
    with writing(out) as folder:
        place = folder / f"model{source.suffix.lower()}"
        given = {"source": str(source.resolve()), "target": str(place.resolve()), "labels": labels}
        asked = {"largest_id": largest_id, "max_tokens": max_tokens, "fallback": fallback}
        seen = guarded(source, function, **given, **asked)
        write_json(folder / "details.json", seen["details"])
    variant = open_variant(seen["name"], out)
    assert variant.path.name == about(variant.name)[3]
    return Adopted(variant, seen["max_tokens"], seen)


def guarded(source: Path, function: Callable[..., Any], /, **arguments: Any) -> Any:
    """`in_child`, with the file named: a crash of an engine or parser is a damaged file."""
    try:
        return in_child(function, **arguments)
    except InputError as error:
        told = str(error)
        crash = re.search(r"was killed by (SIG\w+)", told)
        if crash and crash.group(1) == "SIGKILL":
            raise InputError(f"{source}: it was killed while it was opened, for memory most likely") from None
        if crash:
            told = f"it crashes the engine ({crash.group(1)}), so it is damaged; export it again"
        unforeseen = re.match(rf"{re.escape(function.__module__)}\.\w+ failed: (.*)", told, re.DOTALL)
        if unforeseen:
            told = f"cannot be adopted ({unforeseen.group(1)[:200]}); copy or export it again"
        raise InputError(told if told.startswith(str(source)) else f"{source}: {told}") from None


# What follows runs in the child.


def roles(names: Sequence[str], position: bool = True) -> dict[str, str]:
    """Which of our inputs each of theirs is: by what the names say, else by their order.

    Raises InputError where neither tells.
    """
    if len(names) > len(_OURS):
        raise InputError(f"{len(names)} inputs ({', '.join(names)}); at most {', '.join(_OURS)} are known")
    if len(names) == 1:
        return {names[0]: "input_ids"}
    found = {name: _role(name) for name in names}
    known = [role for role in found.values() if role]
    if len(set(known)) == len(names):
        return {name: str(role) for name, role in found.items()}
    if len(set(known)) == len(known) == len(names) - 1 and "input_ids" not in known:
        return {name: role or "input_ids" for name, role in found.items()}
    if position and not {"attention_mask", "token_type_ids"} & set(known):
        return dict(zip(names, _OURS, strict=False))
    raise InputError(f"inputs {', '.join(names)} cannot be told apart; name them {', '.join(_OURS)}")


def _role(name: str) -> str | None:
    low = name.lower()
    if "position" in low or "past" in low or "decoder" in low:
        raise InputError(f"input {name!r} is not one of {', '.join(_OURS)}; export the model without it")
    if "mask" in low:
        return "attention_mask"
    if "type" in low or "segment" in low:
        return "token_type_ids"
    return "input_ids" if re.search(r"ids?\b|ids?_|token|word", low) else None


def natural(name: str) -> list[Any]:
    """A sorting key by which args_10 comes behind args_2."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def by_position(mapping: dict[str, str]) -> bool:
    """Whether the names of the inputs told nothing."""
    return len(mapping) > 1 and all(_role(name) in (None, "input_ids") for name in mapping)


def plan_lengths(batch: int | None, length: int | None, masked: bool, most: int) -> list[int] | None:
    """The lengths that the graph is asked with; None: any, and in batches.

    Without a mask padding is part of the question, so that each text is padded to the one length that the
    model was trained with.
    """
    if length is not None:
        return [length]
    if not masked:
        return [most]
    return None if batch is None else [*(n for n in LENGTHS if n < most), most]


def most_tokens(
    ask: Ask, batch: int | None, length: int | None, max_tokens: int | None, fallback: int
) -> int:
    """How many tokens of a text are read. What was not asked for is halved until the graph takes it.

    Raises InputError where the graph cannot read as many as were asked for, or more than one text at a time.
    """
    if batch not in (None, 1):
        raise InputError(f"it takes batches of {batch}; export it with a free batch, or a batch of 1")
    if length is not None and (max_tokens or 0) > length:
        raise InputError(f"--max-tokens {max_tokens}, but it takes {length} tokens; give {length} or less")
    most = max_tokens or length or fallback
    if length is None and max_tokens is None:
        while most > 2 * MIN_TOKENS and not _takes(ask, most):
            most //= 2
    if not MIN_TOKENS <= most <= BUNDLE_TOKENS:
        raise InputError(
            f"it reads {most} tokens; a bundle's model reads from {MIN_TOKENS} to {BUNDLE_TOKENS}"
        )
    return most


def _takes(ask: Ask, length: int) -> bool:
    try:
        ask(question(np.zeros((1, length), np.int64)))
    except (EngineError, ValueError, RuntimeError):
        return False
    return True


def question(ids: np.ndarray) -> dict[str, np.ndarray]:
    """Feeds of int64 (1, length) without padding."""
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def probe(
    run: Ask,
    labels: int,
    largest_id: int,
    lengths: list[int] | None,
    most: int,
) -> tuple[list[dict[str, np.ndarray]], np.ndarray]:
    """Ask with random ids, the largest id and the most tokens; return questions and answers (n, labels).

    Raises InputError where an answer fails or has another shape.
    """
    rng, asked, answers = np.random.default_rng(0), [], []
    short = lengths[0] if lengths else MIN_TOKENS
    long = lengths[-1] if lengths else most
    trials = [
        (short, 0, "cannot be run"),
        (short, largest_id, f"fails on token {largest_id} of the tokenizer, which is of another model"),
        (long, 0, f"fails on {long} tokens; give a smaller --max-tokens"),
        *[(int(rng.choice([short, long])), -1, "cannot be run") for _ in range(13)],
    ]
    for length, token, fault in trials:
        drawn = rng.integers(0, largest_id + 1, (1, length))
        ids = drawn if token < 0 else np.full((1, length), token)
        feeds = question(ids)
        feeds["attention_mask"][:, int(rng.integers(2, length + 1)) :] = 0
        try:
            answer = run(feeds)
        except (EngineError, ValueError, RuntimeError) as error:
            raise InputError(f"{fault} ({str(error).splitlines()[0][:120]})") from None
        if answer.shape != (1, labels):
            raise InputError(_wrong_shape(answer.shape, labels))
        asked.append(feeds)
        answers.append(answer.astype(np.float32))
    found = np.concatenate(answers)
    if not np.isfinite(found).all():
        raise InputError("it answers with numbers that are not finite; check the export")
    return asked, found


def _wrong_shape(shape: tuple[int, ...], labels: int) -> str:
    if shape == (1, 1):
        return f"one number a text for {labels} labels; end the model in {labels} logits (or a softmax)"
    return f"answers of shape {shape} for {labels} labels; (1, {labels}) is needed: check --labels"


def are_probabilities(answers: np.ndarray, step: float = 0.0) -> bool:
    """Whether each row is a distribution; `step` is what one quantization step is worth.

    Raises InputError for numbers from 0 to 1 that do not add up: one yes or no a label.
    """
    if answers.min() < 0 or answers.max() > 1 + 1e-3:
        return False
    if np.abs(answers.sum(axis=1) - 1).max() <= 1e-3 + step * answers.shape[1]:
        return True
    raise InputError(
        "each label has a probability of its own (a sigmoid), which is no text-classification of one label a "
        "text; end the model in logits or a softmax"
    )


def require_mask(run: Ask, feeds: dict[str, np.ndarray]) -> None:
    """Inputs were told apart by their order: what is taken for the mask must hide what it covers."""
    ids, mask = feeds["input_ids"], feeds["attention_mask"].copy()
    mask[:, ids.shape[1] // 2 :] = 0
    other = np.where(mask == 1, ids, ids[:, :1])
    one, two = (run({**feeds, "input_ids": asked, "attention_mask": mask}) for asked in (ids, other))
    if not np.allclose(one, two, atol=1e-2, rtol=1e-2):
        raise InputError(f"the second input does not work as a mask; name the inputs {', '.join(_OURS)}")


def require_same(theirs: np.ndarray, ours: np.ndarray, probabilities: bool, step: float = 0.0) -> None:
    """The adapted graph against the user's own file. Raises InputError where they differ."""
    from runtimes.tasks.classify import softmax

    told = softmax(ours) if probabilities else ours
    if not np.allclose(told, theirs, atol=1e-4 + 2 * step, rtol=1e-4):
        worst = float(np.abs(told - theirs).max())
        raise InputError(f"adapted to the bundle it answers otherwise (by {worst:.2g}); report the model")
