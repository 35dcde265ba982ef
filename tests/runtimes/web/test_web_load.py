"""The JavaScript runtime answers as Python does, and refuses what is not whole."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtimes.bundle import open_bundle
from runtimes.load import load

pytestmark = pytest.mark.browser
TEXTS = ["grain exports rise", "goal " * 60, "the striker scores", "shares <b>fall</b> &amp; profit", "中 x"]


@pytest.mark.parametrize("variant", ["onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-dynamic_wi8_afp32"])
def test_golden_logits_and_answers(tab: Any, tiny_bundle: Path, variant: str) -> None:
    golden = open_bundle(tiny_bundle).golden()
    told = tab.evaluate(
        """async ([variant, golden, texts]) => {
          const model = await edgewise.load("./tiny/", { variant });
          const logits = (await model.logits(golden)).map((row) => [...row]);
          const found = { logits, about: model.describe(), answers: [] };
          for (const one of texts) found.answers.push(await model.classify(one));
          await model.close();
          return found;
        }""",
        [variant, [str(text) for text in golden["texts"]], TEXTS],
    )
    tolerance = 1e-3 if variant.endswith("fp32") and "dynamic" not in variant else 0.05
    np.testing.assert_allclose(told["logits"], golden["logits"], atol=tolerance)
    for answer, ours in zip(
        told["answers"], load(tiny_bundle, variant=variant, threads=1)(TEXTS), strict=True
    ):
        assert answer["label"] == ours.label
        assert answer["score"] == pytest.approx(ours.score, abs=0.02)
        assert list(answer["scores"]) == list(ours.scores)
    engine = "onnxruntime-web" if variant.startswith("onnx") else "@litertjs/core"
    assert (told["about"]["engine"], told["about"]["threads"], told["about"]["providers"]) == (
        engine,
        1,
        ["wasm"],
    )


def test_the_default_is_taken(tab: Any, tiny_bundle: Path) -> None:
    found = tab.evaluate("""async () => {
      const names = [];
      for (const how of [{}, { engine: "litert" }]) {
        names.push((await edgewise.load("./tiny", how)).describe().variant);
      }
      return names;
    }""")
    defaults = open_bundle(tiny_bundle).defaults
    assert found == [defaults["*"], defaults["litert"]]


def refused(tab: Any, how: str) -> tuple[str, str]:
    name, message = tab.evaluate(f"failed({how})")
    assert "\n" not in message
    return name, message


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("edgewise.load('./tiny/', {variant: 'onnx-fp99'})", "EngineError", "no variant 'onnx-fp99'"),
        ("edgewise.load('./tiny/', {variant: 'onnx-fp32', engine: 'litert'})", "EngineError", "runs on onnx"),
        ("edgewise.load('./tiny/', {threads: 0})", "EngineError", "threads"),
        ("edgewise.load('./tiny/', {provider: 'webgl'})", "EngineError", "known are wasm and webgpu"),
        ("edgewise.load('./nowhere/')", "BundleError", "HTTP 404"),
        ("edgewise.load('./tiny/', {engines: './nowhere/'})", "EngineError", "put the package there"),
        ("edgewise.load('./tiny/').then((model) => model.classify(' <b> '))", "InputError", "empty"),
        ("edgewise.load('./tiny/').then((model) => model.classify(7))", "InputError", "texts"),
    ],
)
def test_refusals_are_one_line(tab: Any, how: str, kind: str, words: str) -> None:
    name, message = refused(tab, how)
    assert name == kind
    assert words in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda files: files.update({"tokenizer.json": files["tokenizer.json"][:-1] + b" "}), "sha256"),
        (lambda files: files.update({"tokenizer.json": files["tokenizer.json"][:-1]}), "bytes, not"),
        (lambda files: files.update({"tokenizer.json": files["tokenizer.json"] + b" "}), "larger than"),
        (lambda files: files.update({"bundle.json": b"{"}), "not JSON"),
        (lambda files: files.update({"bundle.json": _with(files, {"schema": 2})}), "newer than 1"),
        (lambda files: files.update({"bundle.json": _with(files, {"files": {}})}), "not in the bundle"),
        (lambda files: files.update({"bundle.json": _with(files, {"task": "embed"})}), "task embed"),
    ],
)
def test_a_bundle_that_is_not_whole_is_refused(
    tab: Any, served: Any, tiny_bundle: Path, change: Any, words: str
) -> None:
    paths = (path for path in tiny_bundle.rglob("*") if path.is_file())
    files = {str(path.relative_to(tiny_bundle)): path.read_bytes() for path in paths}
    change(files)
    served.files.update({f"broken/{name}": data for name, data in files.items()})
    name, message = refused(tab, "edgewise.load('./broken/')")
    assert name == "BundleError"
    assert words in message


def _with(files: dict[str, bytes], changed: dict[str, Any]) -> bytes:
    return json.dumps({**json.loads(files["bundle.json"]), **changed}).encode()
