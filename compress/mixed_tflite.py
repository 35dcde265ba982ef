"""Mixed precision of a TFLite graph: the choice of `compress.mixed`, written by ai-edge-quantizer."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from compress.calibrate import read_rows
from compress.graph import place
from compress.mixed import Plan, Rows, lowest_within
from compress.quantize_tflite import by_row, quantize
from compress.static_tflite import cut


def tflite_mixed(source: str, target: str, rows: str) -> dict[str, Any]:
    """Write the mixed graph; the details say which place has which precision and how much each minds int4.

    int4 is as in `tflite_dynamic_wi4_afp32`, int8 as in `tflite_dynamic_wi8_afp32`. `source` must still name
    its inner tensors by their modules (see `export.litert.to_tflite`).
    """
    where, rowwise = scopes(source), by_row(source, 4)

    def make(plan: Plan) -> str:
        write(source, target, where, plan, rowwise)
        return target

    return lowest_within(source, list(where), make, _answers, read_rows(rows))


def scopes(source: str) -> dict[str, list[str]]:
    """Place → scopes of its linear layers and tables, in every signature.

    A scope is what ai-edge-quantizer's rules are matched with: the name of the operator's output.
    """
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flat

    kinds = (qtyping.BuiltinOperator.FULLY_CONNECTED, qtyping.BuiltinOperator.EMBEDDING_LOOKUP)
    model, found = flat.read_model(Path(source)), dict[str, list[str]]()
    for graph in model.subgraphs:
        for node in graph.operators:
            if model.operatorCodes[node.opcodeIndex].builtinCode in kinds:
                scope = flat.get_op_scope(node, graph.tensors)
                found.setdefault(place(_own(scope)), []).append(scope)
    return {name: list(dict.fromkeys(all_of)) for name, all_of in found.items()}


def _own(scope: str) -> str:
    """The last of the modules that a tensor is named for: "a/b;a/c;1;" is c's."""
    return ([part for part in scope.split(";") if part and not part.isdigit()] or [scope])[-1]


def write(source: str, target: str, where: dict[str, list[str]], plan: Plan, rowwise: bool = False) -> None:
    """Each place at its precision: a rule for exactly the scopes at int4, and one for those at int8.

    `where` is of `scopes`; `rowwise` gives int4 one scale a row, not one in 32 inputs.
    """
    from ai_edge_quantizer import qtyping, recipe_manager

    manager, row = recipe_manager.RecipeManager(), qtyping.QuantGranularity.CHANNELWISE
    blocks = row if rowwise else qtyping.QuantGranularity.BLOCKWISE_32
    for precision, bits, granularity in (("int4", 4, blocks), ("int8", 8, row)):
        chosen = [scope for name, at in plan.items() if at == precision for scope in where[name]]
        if chosen:
            rule = f"^(?:{'|'.join(map(re.escape, chosen))})$"
            manager.add_dynamic_config(rule, qtyping.TFLOperationName.ALL_SUPPORTED, bits, granularity)
    if set(plan.values()) == {"fp32"}:
        shutil.copyfile(source, target)
    else:
        quantize(source, target, manager.get_quantization_recipe())


def _answers(path: str, rows: Rows) -> np.ndarray:
    """Logits float32 (n, labels), each row on the shortest signature that holds it, as on the device."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=1)
    runners = {
        int(key.rpartition("_")[2]): interpreter.get_signature_runner(key)
        for key in interpreter.get_signature_list()
    }
    answers = []
    for ids, mask in zip(rows["input_ids"], rows["attention_mask"], strict=True):
        size = min((one for one in runners if one >= mask.sum()), default=max(runners))
        ((_, logits),) = runners[size](args_0=cut(ids, size), args_1=cut(mask, size)).items()
        answers.append(logits)
    return np.concatenate(answers)
