"""The gate: a variant outside the budget stops the build. Nothing "succeeds with a warning"."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.advise import Makings, nearest_passing
from export.diagnose import guilty_layer
from export.gate_generator import PERPLEXITY, rise, written
from export.variant import KNOWN
from runtimes.bundle import Bundle, open_bundle
from runtimes.errors import EdgewiseError, GateError, InputError
from runtimes.golden import continuations_of, inputs_of, outputs_of, tokens_of
from runtimes.load import load, reference
from runtimes.parity import compare, greedy_agreement


@dataclass(frozen=True)
class Budget:
    """What a variant may differ from its checkpoint.

    `max_abs` holds for fp32 variants, the rest for all. `max_drop` is what the task's metric (accuracy,
    F1) may lose, as a fraction (0.01 = 1 point), on `samples` rows of the test split; a generator's
    perplexity may rise by that part. `min_greedy` is a generator's: what part of its answers must be the same
    before they part; of an fp32 variant EXACT_GREEDY, if that is more.
    """

    max_abs: float = 1e-3
    min_cosine: float = 0.99
    min_agreement: float = 0.97
    max_drop: float = 0.01
    min_greedy: float = 0.2
    samples: int = 1_000


# Near ties fall either way by rounding alone, and one may stand anywhere in an answer.
EXACT_GREEDY = 0.8
# What int4 costs a generator of the smallest size; see docs/language/export.md.
GENERATOR_BUDGET = Budget(min_cosine=0.97, min_agreement=0.7, max_drop=0.05, min_greedy=0.05)


def check_budget(budget: Budget) -> None:
    """Raises InputError for a figure that no variant could be held to."""
    for key, value in asdict(budget).items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise InputError(f"budget.{key} = {value!r}: must be a finite number")
    if budget.samples < 1 or budget.max_abs < 0 or budget.max_drop < 0:
        raise InputError("budget: samples must be 1 or more, max_abs and max_drop not below 0")


@dataclass(frozen=True)
class Sample:
    """Test inputs (texts, or question and passage) with the checkpoint's own outputs, as its task has them.

    `truths`: label numbers, or the right answers of each question; None where nothing is right or wrong.
    `judged`: where the metric is not one of single inputs, the checkpoint's own and what gives a model's.
    `written`: what a generator's checkpoint wrote behind the first inputs, as token ids.
    """

    inputs: list[Any]
    truths: Sequence[Any] | None
    outputs: list[np.ndarray]
    judged: tuple[dict[str, Any], Callable[[Any], dict[str, Any]]] | None = None
    written: list[list[int]] | None = None


def gate(
    bundle: Path, budget: Budget, sample: Sample | None = None, makings: Makings | None = None
) -> dict[str, Any]:
    """Compare every variant of a bundle with its checkpoint; return what `parity.json` holds.

    The golden inputs are answered always, the sample of the test split where one is given.
    Raises GateError that names the variant, the figure, the layer and tensor that look guilty, and the
    nearest variant that was made and passes; `makings` helps with both.
    """
    opened = open_bundle(bundle)
    golden = opened.golden()
    return {
        "budget": asdict(budget),
        "variants": {
            name: _gate_variant(opened, name, budget, golden, sample, makings or Makings())
            for name in opened.variants
        },
    }


def check(bundle: Path) -> dict[str, Any]:
    """The gate on a finished bundle, by its golden inputs and the budget that it was packed with."""
    return gate(bundle, packed_budget(open_bundle(bundle)))


def packed_budget(bundle: Bundle) -> Budget:
    """The budget that a bundle was packed with. Raises InputError where there is none."""
    try:
        budget = Budget(**json.loads(bundle.read("parity.json"))["budget"])
        check_budget(budget)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{bundle.path}: parity.json holds no budget ({error}); pack the bundle again"
        ) from None
    return budget


def check_answers(bundle: Bundle, answers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The same gate on what a device made of the golden texts.

    `answers`: variant → {"ids": token ids a row, "outputs": numbers a row}; a row is a text, of a reader a
    window. Raises GateError as `gate` does.
    """
    budget, golden, found = packed_budget(bundle), bundle.golden(), {}
    inputs, model = inputs_of(golden), reference(bundle)
    for name, told in answers.items():
        ids, outputs = _read_answers(bundle, name, told, tokens_of(golden))
        _require_same_tokens(bundle, name, golden, ids)
        found[name] = {"golden": _compared(model, inputs, outputs_of(golden), outputs)}
        if "continuation" in golden:
            found[name]["golden"] |= _written(told, continuations_of(golden))
        faults = _faults(found[name], budget, exact=bundle.variants[name]["precision"] == "fp32")
        if faults:
            raise GateError(
                f"{bundle.name}: variant {name} is not the same model there: {'; '.join(faults)}; "
                "take another variant for this device"
            )
    return {"budget": asdict(budget), "variants": found}


def _written(told: dict[str, Any], wanted: list[list[int]]) -> dict[str, Any]:
    """What a generator wrote on a device: its tokens, and what part is the checkpoint's before they part."""
    rows = told.get("continuations")
    plain = isinstance(rows, list) and all(isinstance(row, list) for row in rows)
    got = [[one for one in row if type(one) is int] for row in rows or []] if plain else []
    return {"greedy": greedy_agreement(wanted, got), "continuations": got}


def _read_answers(
    bundle: Bundle, name: str, told: dict[str, Any], wanted: list[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Token ids and outputs a row as a device told them. Raises GateError for what proves nothing."""
    count = len(wanted)
    try:
        ids = [np.asarray(row, wanted[0].dtype) for row in told["ids"]]
        outputs = [np.asarray(row, np.float32) for row in told["outputs"]]
    except (KeyError, TypeError, ValueError, OverflowError):
        ids, outputs = [], []
    if name not in bundle.variants or not len(ids) == len(outputs) == count:
        raise GateError(
            f"{bundle.name}: variant {name}: {len(ids)} of {count} golden texts were answered there; "
            "try again"
        )
    return ids, outputs


def _compared(
    model: Any, inputs: Sequence[Any], wanted: list[np.ndarray], got: list[np.ndarray]
) -> dict[str, Any]:
    """Figures of outputs against the checkpoint's; `model` of the same task and tokenizer tells verdicts."""
    whole = [a.shape for a in wanted] == [b.shape for b in got]  # else nothing follows from them
    verdicts = [model.verdicts(inputs, rows) for rows in ((wanted, got) if whole else (wanted,))]
    return {**compare(wanted, got, verdicts[0], verdicts[-1]), "n": len(inputs)}


def _gate_variant(
    bundle: Bundle,
    name: str,
    budget: Budget,
    golden: dict[str, np.ndarray],
    sample: Sample | None,
    makings: Makings,
) -> dict[str, Any]:
    print(f"gate: {name}", file=sys.stderr, flush=True)
    try:
        model = load(bundle.path, variant=name)
        tokens = model.tokens(inputs_of(golden))
        result = _figures(model, golden, sample)
    except EdgewiseError as error:
        raise GateError(f"{bundle.name}: variant {name} cannot answer: {error}") from error
    _require_same_tokens(bundle, name, golden, tokens)
    faults = _faults(result, budget, exact=bundle.variants[name]["precision"] == "fp32")
    if not faults:
        return result

    def passes(path: Path, other: str) -> bool:
        figures = _figures(load(path, variant=other), golden, sample)
        return not _faults(figures, budget, exact=KNOWN[other][1] == "fp32")

    layer = guilty_layer(bundle, name, makings.parents)
    advice = nearest_passing(bundle, name, makings, passes)
    raise GateError(
        f"{bundle.name}: variant {name} is not the same model: {'; '.join(faults)}"
        f"{layer}{advice}; loosen [budget] knowingly or leave the variant out"
    )


def _figures(model: Any, golden: dict[str, np.ndarray], sample: Sample | None) -> dict[str, Any]:
    inputs = inputs_of(golden)
    figures = {"golden": _compared(model, inputs, outputs_of(golden), model.outputs(inputs))}
    if "continuation" in golden:
        figures["golden"] |= written(model, inputs, continuations_of(golden))
    if sample is not None:
        figures["sample"] = _on_sample(model, model.outputs(sample.inputs), sample)
    return figures


def _on_sample(model: Any, outputs: list[np.ndarray], sample: Sample) -> dict[str, Any]:
    figures = _compared(model, sample.inputs, sample.outputs, outputs)
    if sample.written is not None:
        figures |= written(model, sample.inputs, sample.written)
    if sample.judged is not None:
        own, judge = sample.judged
        told = {
            "name": own["name"],
            "checkpoint": own["value"],
            "variant": judge(model)["value"],
            "n": own["n"],
        }
        return {**figures, "metric": told}
    if sample.truths is None:
        return figures
    wanted, got = (model.metric(sample.inputs, rows, sample.truths) for rows in (sample.outputs, outputs))
    if wanted is None:
        return figures
    metric = {"name": wanted["name"], "checkpoint": wanted["value"], "variant": got["value"]}
    return {**figures, "metric": metric}


def _require_same_tokens(
    bundle: Bundle, name: str, golden: dict[str, np.ndarray], tokens: Sequence[np.ndarray]
) -> None:
    """The bundle's tokenizer must give the very ids that the checkpoint was asked with."""
    wanted = tokens_of(golden)
    if len(tokens) != len(wanted):
        raise GateError(f"{bundle.name}: variant {name}: {len(tokens)} rows of tokens, not {len(wanted)}")
    for row, (ids, want) in enumerate(zip(tokens, wanted, strict=True)):
        if not np.array_equal(ids, want):
            raise GateError(f"{bundle.name}: variant {name}: golden text {row} tokenizes otherwise")


def _faults(result: dict[str, Any], budget: Budget, exact: bool) -> list[str]:
    faults = []
    for part in ("golden", "sample"):
        figures = result.get(part)
        if figures is None:
            continue
        # Not ">": a NaN must fail.
        if exact and not figures["max_abs"] <= budget.max_abs:
            faults.append(f"{part} max_abs {figures['max_abs']:.2g} over {budget.max_abs:g}")
        if not figures["cosine"] >= budget.min_cosine:
            faults.append(f"{part} cosine {figures['cosine']:.4f} under {budget.min_cosine:g}")
        if not figures["agreement"] >= budget.min_agreement:
            faults.append(f"{part} agreement {figures['agreement']:.4f} under {budget.min_agreement:g}")
        least = max(budget.min_greedy, EXACT_GREEDY) if exact else budget.min_greedy
        if "greedy" in figures and not figures["greedy"] >= least:
            faults.append(f"{part} greedy agreement {figures['greedy']:.4f} under {least:g}")
        if "metric" in figures and figures["metric"]["name"] == PERPLEXITY:
            if not rise(figures["metric"]) <= budget.max_drop:
                faults.append(f"perplexity rise {rise(figures['metric']):.4f} over {budget.max_drop:g}")
        elif "metric" in figures:
            drop = figures["metric"]["checkpoint"] - figures["metric"]["variant"]
            if not drop <= budget.max_drop:
                faults.append(f"{figures['metric']['name']} drop {drop:.4f} over {budget.max_drop:g}")
    return faults
