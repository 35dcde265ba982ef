"""The rungs of the compression ladder: one recipe, changed a step at a time."""

from dataclasses import replace
from pathlib import Path

from apps.recipe import Recipe, read_recipe
from compress.prune import PruneConfig

RECIPE = Path(__file__).with_name("ag_news.toml")
BOTH = ("onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-dynamic_wi8_afp32")


def rungs(seed: int, recipe: Path = RECIPE) -> dict[str, Recipe]:
    """Name → recipe, from the teacher as it is to the student; all share one teacher."""
    whole = read_recipe(recipe, {"seed": str(seed)})
    alone = replace(whole, vocabulary=None, distil=None)
    trimmed = replace(whole, distil=None)
    found = {"quantized only": alone, "vocabulary": trimmed}
    for percent in (75, 50, 25):
        cut = PruneConfig(
            keep=percent / 100, batch_size=32, learning_rate=2e-4, epochs=2, max_tokens=128, seed=seed
        )
        found[f"pruned to {percent}%"] = replace(trimmed, prune=cut)
    return found | {"student": whole}
