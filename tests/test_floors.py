"""The house: imports go down only, and the ground floor needs nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {"runtimes": 1, "trainers": 2, "device_bench": 2, "compress": 3, "export": 4, "apps": 5}
HEAVY = (
    "torch",
    "transformers",
    "onnx",
    "tensorflow",
    "fastapi",
    "typer",
    "datasets",
    "sklearn",
    "matplotlib",
)
# The whole of what the device's floor may import beside the standard library.
DEVICE = {"numpy", "tokenizers", "runtimes", "onnxruntime", "ai_edge_litert", "tflite_runtime"}
EXECUTORCH = {"executorch", "torch"}  # only in its own engine: its Python package takes torch's tensors
REFERENCE = {"torch", "transformers"}  # only in the reference engine, which never goes to a device


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize(
    "path", [p for floor in FLOORS for p in sorted((ROOT / floor).rglob("*.py"))], ids=str
)
def test_no_folder_imports_a_higher_floor(path):
    folder = path.relative_to(ROOT).parts[0]
    above = {name for name in imported(path) & FLOORS.keys() if FLOORS[name] > FLOORS[folder]}
    beside = {name for name in imported(path) & FLOORS.keys() if FLOORS[name] == FLOORS[folder]} - {folder}
    assert not above and not beside, f"{path} imports {above | beside}"


@pytest.mark.parametrize("path", sorted((ROOT / "runtimes").rglob("*.py")), ids=str)
def test_the_ground_floor_imports_only_what_a_device_has(path):
    allowed = DEVICE | set(sys.stdlib_module_names)
    if path.name in ("torch.py", "torch_decoder.py", "patches.py"):
        allowed |= REFERENCE
    if path.name == "executorch.py":
        allowed |= EXECUTORCH
    assert imported(path) <= allowed


def test_systems_do_not_import_each_other():
    systems = [folder for folder in (ROOT / "apps").iterdir() if (folder / "recipe.toml").is_file()]
    assert systems
    for system in systems:
        others = {f"apps.{other.name}" for other in systems if other != system}
        for path in system.rglob("*.py"):
            assert not any(other in path.read_text() for other in others), path


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {heavy}:
            raise ImportError(f"blocked: {{name}}")
sys.meta_path.insert(0, Block())
import edgewise
model = edgewise.load({bundle!r}, engine={engine!r}, threads=1)
print({answer})
assert not set({heavy}) & set(sys.modules), set({heavy}) & set(sys.modules)
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnx", "litert"])
def test_a_bundle_answers_with_everything_heavy_blocked(tiny_bundle, engine):
    said = blocked(tiny_bundle, engine, 'model("grain exports rise").label, model.describe()["variant"]')
    assert said.split()[1].startswith("onnx" if engine == "onnx" else "tflite")


def blocked(bundle, engine: str, answer: str) -> str:
    """What a fresh process prints that can import nothing heavy."""
    code = BLOCKED.format(heavy=HEAVY, bundle=str(bundle), engine=engine, answer=answer)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_generator_writes_with_everything_heavy_blocked(lm_bundles, family):
    from runtimes.load import load

    chat = '[{"role": "user", "content": "the cat"}]'
    answer = f"model({chat}, max_new_tokens=16, temperature=1.0, seed=3).tokens"
    wanted = load(lm_bundles[family], threads=1)(
        [{"role": "user", "content": "the cat"}], max_new_tokens=16, temperature=1.0, seed=3
    )
    assert blocked(lm_bundles[family], "onnx", answer) == f"{wanted.tokens}\n"


def test_the_app_facing_name_is_lazy():
    code = (
        "import sys, edgewise; print([m for m in ('numpy', 'tokenizers', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
