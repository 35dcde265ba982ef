"""The rungs of the compression ladder: one recipe, changed a step at a time."""

from dataclasses import replace
from pathlib import Path

from apps.recipe import ExportConfig, Recipe, read_recipe
from compress.prune import PruneConfig
from export.gate import Budget
from export.variant import DEFAULT, KNOWN

RECIPE = Path(__file__).with_name("ag_news.toml")
# What a rung loses is measured here; whether it may ship is asked of those that keep the recipe's budget.
UNGATED = Budget(max_abs=1e9, min_cosine=-1.0, min_agreement=0.0, max_drop=1.0, samples=7_600)
# ExecuTorch runs in an environment of its own, so it cannot stand in the same interleaved run.
OTHERWISE = tuple(n for n in KNOWN if n not in DEFAULT and KNOWN[n][0] != "executorch")
INT4 = ("onnx-int4", "tflite-dynamic_wi4_afp32")
CUT_TO = (0.75, 0.5, 0.25)


def rungs(seed: int, recipe: Path = RECIPE) -> dict[str, Recipe]:
    """Name → recipe, from the teacher as it is to the student; all share one teacher."""
    whole = read_recipe(recipe, {"seed": str(seed)})
    alone = replace(whole, vocabulary=None, distil=None)
    trimmed = replace(whole, distil=None)
    found = {
        "quantized only": alone,
        "quantized otherwise": _with(alone, OTHERWISE),
        "vocabulary": trimmed,
    }
    for keep in CUT_TO:
        cut = PruneConfig(keep=keep, batch_size=32, learning_rate=2e-4, epochs=2, max_tokens=128, seed=seed)
        found[f"pruned to {keep:.0%}"] = replace(trimmed, prune=cut, budget=UNGATED)
    return found | {"student": whole, "student in 4 bits": _with(whole, INT4)}


def _with(recipe: Recipe, variants: tuple[str, ...]) -> Recipe:
    """The same with other variants, measured without a gate."""
    lengths = recipe.export.lengths
    return replace(recipe, export=ExportConfig(variants, lengths), budget=UNGATED)
