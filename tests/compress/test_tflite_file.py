"""What is left of a .tflite after `compact`: the same answers, the borders' names, aligned buffers."""

import shutil

import numpy as np

from compress.tflite_file import compact


def graph(path):
    from ai_edge_litert import schema_py_generated as schema

    return schema.Model.GetRootAs(path.read_bytes(), 0)


def test_buffers_are_aligned_as_the_schema_asks(tiny_variants, tmp_path):
    path = tmp_path / "model.tflite"
    shutil.copy(tiny_variants["tflite-fp32"].path, path)
    compact(str(path))
    model = graph(path)
    tables = [model.Buffers(i)._tab for i in range(model.BuffersLength()) if model.Buffers(i).DataLength()]
    assert tables and {table.Vector(table.Offset(4)) % 16 for table in tables} == {0}


def test_names_stay_at_the_borders_alone_and_weights_are_the_same(tiny_variants, tmp_path):
    path = tmp_path / "model.tflite"
    shutil.copy(tiny_variants["tflite-fp32"].path, path)
    compact(str(path))
    before, after = graph(tiny_variants["tflite-fp32"].path), graph(path)
    for at in range(before.SubgraphsLength()):
        old, new = before.Subgraphs(at), after.Subgraphs(at)
        border = {*new.InputsAsNumpy().tolist(), *new.OutputsAsNumpy().tolist()}
        for index in range(old.TensorsLength()):
            one, other = old.Tensors(index), new.Tensors(index)
            assert (other.Name() or b"") == (one.Name() if index in border else b"")
            data = [model.Buffers(t.Buffer()).DataAsNumpy() for model, t in ((before, one), (after, other))]
            assert np.array_equal(*data)
