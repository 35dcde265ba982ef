"""A text generator through the whole flow: tuned, exported, gated, checked; and somebody else's folder."""

import json
import shutil

import pytest
from tiny_generator import TEXT, make_generator

from apps.cli.main import run
from apps.flow import build, plan
from apps.recipe import read_recipe
from runtimes.errors import InputError

RECIPE = """
name = "tiny-lm"
task = "text-generation"
[data]
name = "{texts}"
[base]
name = "{base}"
max_tokens = 96
[instructions]
name = "{rows}"
[sft]
tokens = 400
max_tokens = 48
batch_size = 2
rank = 2
[export]
variants = ["onnx-int4"]
[budget]
max_drop = 0.5
min_cosine = 0.8
min_agreement = 0.1
min_greedy = 0.0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import random

    folder, draw = tmp_path_factory.mktemp("flow"), random.Random(0)
    lines = [" ".join(draw.choices(TEXT.split(), k=60)) for _ in range(20)]
    (folder / "texts.txt").write_text("\n\n".join(lines))
    rows = [
        {"prompt": f"what does the {who} see?", "response": f"the {who} sees a fish"}
        for who in ("cat", "dog")
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 4))
    make_generator(folder / "base")
    make_generator(folder / "gpt2", "gpt2", template=False)
    told = {"texts": folder / "texts.txt", "base": folder / "base", "rows": folder / "rows.jsonl"}
    (folder / "recipe.toml").write_text(RECIPE.format(**told))
    return folder


def test_a_recipe_tunes_exports_and_gates(folder, capsys):
    paths = build(read_recipe(folder / "recipe.toml"), folder / "runs", until="packed")
    assert list(paths) == ["data", "baselines", "teacher", "tuned", "onnx-fp32", "onnx-int4", "packed"]
    manifest = json.loads((paths["packed"] / "bundle.json").read_text())
    assert (
        list(manifest["variants"]) == ["onnx-int4"] and manifest["variants"]["onnx-int4"]["blocks"]["fitted"]
    )
    assert [step["step"] for step in manifest["lineage"]] == ["adopted", "sft"]
    assert run(["run", str(paths["packed"]), "the cat"]) == 0 and capsys.readouterr().out.strip()
    assert run(["check", str(paths["packed"])]) == 0 and "greedy text" in capsys.readouterr().out


def test_other_rows_or_settings_make_other_steps(folder):
    def names(**overrides):
        recipe = read_recipe(folder / "recipe.toml", overrides)
        return {step.name: step.path.name for step in plan(recipe, folder / "runs")}

    first, other = names(), names(**{"sft.rank": "4"})
    changed = {name for name in first if first[name] != other[name]}
    assert changed == {"tuned", "onnx-fp32", "onnx-int4", "packed", "bench", "bundle", "report"}
    context = names(**{"base.max_tokens": "64"})
    assert context["teacher"] != first["teacher"] and context["data"] == first["data"]


@pytest.mark.parametrize(
    "overrides, told",
    [
        ({"export.variants": '["onnx-wi8"]'}, "'onnx-wi8' is not one of a text generator's"),
        ({"base.max_tokens": "2"}, "base.max_tokens = 2: must be 4 or more"),
        ({"qat.bits": "4"}, "qat: a text generator is tuned by"),
        ({"sft.rank": "0"}, "sft.rank = 0"),
    ],
)
def test_what_a_generator_has_not_is_refused(folder, overrides, told):
    with pytest.raises(InputError) as error:
        read_recipe(folder / "recipe.toml", overrides)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_a_folder_of_somebody_else_becomes_a_bundle_or_is_refused(folder, tmp_path, capsys):
    out = tmp_path / "gpt2.bundle"
    command = ["export", str(folder / "gpt2"), "--out", str(out)]
    assert run(command) == 2 and "give --data" in capsys.readouterr().err
    data = ["--data", str(folder / "texts.txt")]
    assert run([*command, *data, "--variant", "tflite-fp32"]) == 2
    assert "'tflite-fp32' is not one of onnx-fp32, onnx-int8, onnx-int4" in capsys.readouterr().err
    assert run([*command, *data, "--variant", "onnx-fp32"]) == 0
    manifest = json.loads((out / "bundle.json").read_text())
    assert (
        manifest["variants"]["onnx-fp32"]["cache"]["shared"] is False
        and manifest["limits"]["max_tokens"] == 128
    )
    assert manifest["generation"]["template"] is None and "chat_template.jinja" not in manifest["files"]
    shutil.rmtree(out)
