"""Static int8 of a TFLite graph: ranges of activations are set from calibration rows."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from compress.calibrate import read_rows
from compress.tflite_file import compact

# Added to the score of a masked position in the all-integer graph. It widens the range of the scores, so a
# step of theirs is coarse; a smaller one would let padding speak.
MASKED = -16.0
LEAST_A_SIGNATURE = 64


def tflite_static_wi8_ai8(source: str, target: str, rows: str) -> dict[str, Any]:
    """Products with int8 weights and int8 activations of fixed ranges, the rest in fp32.

    ai-edge-quantizer's recipe of that name quantizes every operator, the mask of the attention too: its
    least fp32 number leaves one step for all scores. So the recipe holds for the products alone here, and
    tables are int8 per row.
    """
    from ai_edge_quantizer import qtyping, recipe_manager

    manager = recipe_manager.RecipeManager()
    operation = qtyping.TFLOperationName
    manager.add_static_config(".*", operation.FULLY_CONNECTED, activation_num_bits=8, weight_num_bits=8)
    manager.add_dynamic_config(".*", operation.EMBEDDING_LOOKUP, 8)
    return _calibrated(source, target, manager.get_quantization_recipe(), rows)


def tflite_full_int8(source: str, target: str, rows: str) -> dict[str, Any]:
    """Every operator in int8, for engines without floating point; token ids stay int32, logits are int8.

    `source` is a graph whose mask is MASKED (see `export.litert.to_tflite`), or one that reads numbers,
    which go in as int8 too.
    """
    from ai_edge_quantizer import recipe

    return _calibrated(source, target, recipe.static_wi8_ai8(), rows)


def _calibrated(source: str, target: str, recipe: Any, rows: str) -> dict[str, Any]:
    from ai_edge_quantizer import calibrator, quantizer, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    read, manager = read_rows(rows), recipe_manager.RecipeManager()
    manager.load_quantization_recipe(recipe)
    # The quantizer's own default averages the ranges of rows, which clips the surest answers.
    seen = calibrator.Calibrator(source, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    seen.calibrate(signature_rows(source, read), manager)
    made = quantizer.Quantizer(source, recipe).quantize(seen.get_model_qsvs())
    made.export_model(target, overwrite=True)
    compact(target)
    return {"calibration_rows": len(read["labels"])}


def signature_rows(source: str, rows: dict[str, np.ndarray]) -> dict[str, Iterable[dict[str, np.ndarray]]]:
    """Signature → its inputs, int32 (1, length): the rows that fit, and others cut where they are few.

    Windows of numbers all fit the one signature that such a graph has.
    """
    if "values" in rows:
        return {"window": [{"args_0": row[None]} for row in rows["values"]]}
    from ai_edge_litert.interpreter import Interpreter

    lengths = rows["attention_mask"].sum(axis=1)
    inputs: dict[str, Iterable[dict[str, np.ndarray]]] = {}
    for key in Interpreter(model_path=source).get_signature_list():
        size = int(key.rpartition("_")[2])
        # Ranges from a handful of rows would clip: where few fit, others stand in with their beginning.
        order = np.argsort(lengths > size, kind="stable")
        chosen = order[: max(int((lengths <= size).sum()), min(LEAST_A_SIGNATURE, len(order)))]
        inputs[key] = [
            {"args_0": cut(rows["input_ids"][row], size), "args_1": cut(rows["attention_mask"][row], size)}
            for row in chosen
        ]
    return inputs


def cut(tokens: np.ndarray, size: int) -> np.ndarray:
    """A row's ids or mask as a signature takes them: int32 (1, size), padded with 0 or cut at its end."""
    padded = np.pad(tokens, (0, max(0, size - len(tokens))))
    return padded[None, :size].astype(np.int32)
