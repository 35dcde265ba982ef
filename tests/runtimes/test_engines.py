"""What the engines refuse before they open anything."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from runtimes.engines.onnx import _refuse_external_data
from runtimes.errors import EngineError

KEY = b"location"


@pytest.mark.parametrize(
    "entry",
    [
        b"\x0a\x08" + KEY + b"\x12\x01w",
        b"\x12\x01w\x0a\x08" + KEY,  # value before key
        b"\x0a\x88\x00" + KEY + b"\x12\x01w",  # a length padded to two bytes
        b"\x8a\x80\x00\x08" + KEY,  # a padded tag
    ],
)
def test_every_spelling_of_external_data_is_refused(entry, tmp_path):
    graph = tmp_path / "model.onnx"
    graph.write_bytes(b"\x08\x09" + entry)
    for source in (graph, graph.read_bytes()):
        with pytest.raises(EngineError, match="keeps its weights in other files"):
            _refuse_external_data(source, "model.onnx")


def test_a_name_with_the_word_in_it_is_not(tmp_path):
    _refuse_external_data(b"\x0a\x12location_embedding", "model.onnx")
    (tmp_path / "empty").touch()
    _refuse_external_data(tmp_path / "empty", "model.onnx")


WITH_TENSORFLOW = """
import sys
from runtimes.engines import PACKAGES
from runtimes.load import load
PACKAGES["litert"] = ("tensorflow",)
model = load(sys.argv[1], variant="tflite-fp32", threads=1)
print(model("wheat harvest and corn export").label, model.describe()["engine"])
import sqlite3
sqlite3.connect(":memory:").execute("CREATE VIRTUAL TABLE words USING fts5 (text)")
"""


@pytest.mark.slow
def test_litert_through_tensorflow(tiny_bundle):
    """It answers, and leaves full-text search to Python's own SQLite."""
    if find_spec("tensorflow") is None:
        pytest.skip("tensorflow is not installed")
    command = [sys.executable, "-c", WITH_TENSORFLOW, str(tiny_bundle)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("grain tensorflow")
