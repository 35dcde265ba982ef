"""Mixed precision: as low as the calibration rows allow, layer by layer.

How much a place of the encoder (embeddings, the attention and the feed-forward of each layer, head) minds
being quantized is measured alone, against the fp32 graph. Then the places that mind most are raised, first
from int4 to int8 and then to fp32, until the budget holds. All engines share that choice; the rest is ONNX's.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from compress.blockwise import quantize_products, quantize_tables
from compress.calibrate import read_rows, single_feeds
from compress.graph import Model, fused, place, products, tables
from compress.quantize import dynamic_int8

# Enough to order the places, at the cost of as many sessions as there are.
_SENSITIVITY_ROWS = 64
_LADDER = ("int4", "int8", "fp32")

Plan = dict[str, str]  # place → precision
Rows = dict[str, np.ndarray]  # as `read_rows` gives them


@dataclass(frozen=True)
class MixedConfig:
    """What the mixed graph may lose on the calibration rows: label agreement with the fp32 graph, and
    accuracy in points as a fraction."""

    min_agreement: float = 0.99
    max_drop: float = 0.005


def onnx_mixed(source: str, target: str, rows: str) -> dict[str, Any]:
    """Write the mixed graph; the details say which place has which precision and how much each minds int4."""
    places = list(dict.fromkeys(_places(_graph(source)).values()))

    def make(plan: Plan) -> str:
        _write(source, target, plan)
        return target

    return lowest_within(source, places, make, _answers, read_rows(rows))


def lowest_within(
    source: str,
    places: list[str],
    make: Callable[[Plan], str],
    answers: Callable[[str, Rows], np.ndarray],
    rows: Rows,
) -> dict[str, Any]:
    """Make the graph with the fewest steps up that holds the budget; returns the variant's details.

    `source`: file of the fp32 graph. `make(place → precision)` writes a graph and gives its file; the last
    call is for the chosen plan. `answers(file, rows)`: logits float32 (n, labels). Any engine's will do.
    """
    config = MixedConfig()
    few = {key: value[:_SENSITIVITY_ROWS] for key, value in rows.items()}
    exact, want = answers(source, few), answers(source, rows)

    def damage(name: str) -> float:
        alone = make({**dict.fromkeys(places, "fp32"), name: "int4"})
        return float(np.sqrt(((answers(alone, few) - exact) ** 2).mean()))

    sensitivity = {name: damage(name) for name in places}
    steps = _steps(sensitivity)
    low, high = 0, len(steps)
    while low < high:  # the fewest steps up that hold the budget
        middle = (low + high) // 2
        if within(answers(make(plan_after(places, steps[:middle])), rows), want, rows["labels"], config):
            high = middle
        else:
            low = middle + 1
    plan = plan_after(places, steps[:low])
    figures = _figures(answers(make(plan), rows), want, rows["labels"])
    higher = {name: precision for name, precision in plan.items() if precision != "int4"}
    return {
        "calibration_rows": len(rows["labels"]),
        "mixed": {
            "lowest": "int4",
            "higher": higher,
            "rmse_alone_in_int4": {name: round(value, 6) for name, value in sensitivity.items()},
            "budget": asdict(config),
            **figures,
        },
    }


def _steps(sensitivity: dict[str, float]) -> list[str]:
    """Places in the order in which they go up a rung: all to int8 first, the most sensitive one first."""
    ranked = sorted(sensitivity, key=lambda name: -sensitivity[name])
    return ranked * (len(_LADDER) - 1)


def plan_after(places: list[str], steps: list[str]) -> Plan:
    """Place → precision after these steps up."""
    return {name: _LADDER[steps.count(name)] for name in places}


def within(got: np.ndarray, want: np.ndarray, labels: np.ndarray, config: MixedConfig) -> bool:
    figures = _figures(got, want, labels)
    drop = figures["accuracy"]["fp32"] - figures["accuracy"]["mixed"]
    return bool(figures["agreement"] >= config.min_agreement and drop <= config.max_drop + 1e-9)


def _figures(got: np.ndarray, want: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    mine, theirs = got.argmax(1), want.argmax(1)
    accuracy = {"fp32": float((theirs == labels).mean()), "mixed": float((mine == labels).mean())}
    return {"agreement": float((mine == theirs).mean()), "accuracy": accuracy}


def _graph(source: str) -> Model:
    import onnx

    return fused(onnx.load(source))


def _places(model: Model) -> dict[str, str]:
    return {name: place(name) for name in (*tables(model), *products(model))}


def _write(source: str, target: str, plan: Plan) -> None:
    """The fused graph with each place at its precision; int8 products are dynamic, the fastest kind."""
    import onnx

    model = _graph(source)
    where = _places(model)
    bits = {name: int(plan[at][3:]) for name, at in where.items() if plan[at] != "fp32"}
    quantize_tables(model, bits, 64)
    quantize_products(model, {name: width for name, width in bits.items() if width == 4}, 64)
    eight = [name for name, width in bits.items() if width == 8 and name in products(model)]
    if eight:
        dynamic_int8(model, target, eight)
    else:
        onnx.save(model, target)


def _answers(path: str, rows: Rows) -> np.ndarray:
    """Logits float32 (n, labels), one row at a time, as on the device."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    return np.concatenate([session.run(None, feeds)[0] for feeds in single_feeds(rows, names)])
