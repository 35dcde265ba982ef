"""What a search may choose: vocabulary, share kept by pruning, a student's depth and width, the variant."""

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compress.vocabulary import smallest_vocabulary
from export.variant import DEFAULT, KNOWN
from trainers.checkpoint import Checkpoint

if TYPE_CHECKING:
    import optuna

_PARTS = ("vocabulary", "keep", "layers", "hidden_size", "intermediate_size")


@dataclass(frozen=True)
class Space:
    """`tokens`: fewest and most of a vocabulary that can be trimmed. `layers` is 0 for an architecture that
    cannot be cut. A student's width goes by whole heads of `head_size`."""

    variants: tuple[str, ...]
    tokens: tuple[int, int] | None = None
    layers: int = 0
    heads: int = 0
    head_size: int = 0
    neurons: int = 0


def space_of(checkpoint: Checkpoint, variants: tuple[str, ...]) -> Space:
    """What this checkpoint leaves to choose."""
    from runtimes.errors import InputError
    from trainers.model import open_model
    from trainers.shape import family_of, head_size

    model, tokens = open_model(checkpoint.path), _tokens(checkpoint)
    try:
        family = family_of(model, checkpoint.path)
    except InputError:
        return Space(variants, tokens)
    size = head_size(model, family)
    return Space(
        variants,
        tokens,
        getattr(model.config, family.depth),
        getattr(model.config, family.width) // size,
        size,
        getattr(model.config, family.neurons),
    )


def _tokens(checkpoint: Checkpoint) -> tuple[int, int] | None:
    model = json.loads((checkpoint.path / "tokenizer.json").read_bytes())["model"]
    if model.get("type", "WordPiece") != "WordPiece":
        return None
    fewest, most = smallest_vocabulary(checkpoint), len(model["vocab"])
    return (fewest, most) if fewest < most else None


def ladder(space: Space, reference: str, trials: int) -> list[dict[str, Any]]:
    """The first trials, as parameters, cheap ones first: quantization alone (at most half of all `trials`),
    fewer tokens, then those that train. Where no variant is named the best one so far is taken."""
    plain = {"trim": False, "shape": "whole"} if space.tokens else {"shape": "whole"}
    others = [name for name in space.variants if KNOWN[name][1] not in ("fp32", "fp16")]
    others.sort(key=lambda name: name not in DEFAULT)
    rungs = [{**plain, "variant": name} for name in [reference, *others[: max(1, trials // 2 - 1)]]]
    trim: dict[str, Any] = {}
    if space.tokens:
        large, small = (_between(space.tokens, share) for share in (2 / 3, 1 / 3))
        rungs += [{"trim": True, "tokens": tokens, "shape": "whole"} for tokens in (large, small)]
        trim = {"trim": True, "tokens": large}
    if space.layers:
        student = {**trim, "shape": "student", "heads": space.heads}
        depths = dict.fromkeys((math.ceil(space.layers / 2), math.ceil(space.layers / 3)))
        rungs += [{**student, "layers": depth} for depth in depths if depth < space.layers]
        rungs.append({**trim, "shape": "pruned", "keep": 0.5})
    return rungs


def _between(pair: tuple[int, int], share: float) -> int:
    """`share` of the way from the first to the second, by factors."""
    return rounded(round(pair[0] * (pair[1] / pair[0]) ** share), pair)


def rounded(tokens: int, pair: tuple[int, int]) -> int:
    """Coarse numbers, so that trials share a vocabulary: steps of 2%, within the pair."""
    step = max(1, 10 ** (len(str(tokens)) - 2) // 2)
    return min(pair[1], max(pair[0], round(tokens / step) * step))


def suggest(trial: "optuna.Trial", space: Space) -> tuple[dict[str, Any], str]:
    """The shape (keys of `ShrinkConfig`, None: as it is) and the variant of one trial."""
    variant = trial.suggest_categorical("variant", list(space.variants))
    shape: dict[str, Any] = dict.fromkeys(_PARTS)
    if space.tokens and trial.suggest_categorical("trim", [False, True]):
        shape["vocabulary"] = rounded(trial.suggest_int("tokens", *space.tokens, log=True), space.tokens)
    kinds = ["whole", "pruned", "student"] if space.layers else ["whole"]
    kind = trial.suggest_categorical("shape", kinds)
    if kind == "pruned":
        shape["keep"] = round(trial.suggest_float("keep", 0.2, 0.9, step=0.05), 2)
    elif kind == "student":
        shape["layers"] = trial.suggest_int("layers", 1, space.layers)
        heads = trial.suggest_int("heads", max(1, space.heads // 4), space.heads)
        if heads < space.heads:
            shape["hidden_size"] = heads * space.head_size
            shape["intermediate_size"] = max(1, space.neurons * heads // space.heads)
    return shape, variant


def said(shape: dict[str, Any]) -> str:
    """A shape in words: "12,300 tokens, 3 layers"."""
    layers = "{} layer" if shape.get("layers") == 1 else "{} layers"
    units = {"layers": layers, "hidden_size": "hidden {}", "intermediate_size": "feed-forward {}"}
    parts = [units[key].format(shape[key]) for key in units if shape.get(key) is not None]
    if shape.get("keep") is not None:
        parts.insert(0, f"pruned to {shape['keep']:.2f}")
    if shape.get("vocabulary") is not None:
        parts.insert(0, f"{shape['vocabulary']:,} tokens")
    return ", ".join(parts) or "as it is"
