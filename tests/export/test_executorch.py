"""Checkpoint → .pte, for real, in the environment that has executorch."""

import json

import pytest
from apart import need_executorch

from export import executorch
from export.variants import export_variant, open_variant
from runtimes.errors import InputError


def test_the_way_to_the_environment_is_one_line(monkeypatch):
    monkeypatch.setattr(executorch, "find_spec", lambda name: None)
    monkeypatch.setattr(executorch.elsewhere, "interpreter", lambda name: None)
    with pytest.raises(InputError, match="run `make executorch`"):
        executorch.interpreter()


@pytest.mark.slow
def test_int8_holds_its_tables_and_layers_in_a_byte(pte_variants):
    sizes = {name: variant.path.stat().st_size for name, variant in pte_variants.items()}
    assert sizes["executorch-int8"] < 0.75 * sizes["executorch-fp32"]


@pytest.mark.slow
def test_details_say_how_to_call_it(pte_variants):
    variant = pte_variants["executorch-fp32"]
    assert open_variant(variant.name, variant.path.parent) == variant
    entry = variant.entry()
    assert entry["engine"] == "executorch" and entry["file"] == "variants/executorch-fp32/model.pte"
    assert entry["inputs"] == ["input_ids", "attention_mask"] and entry["max_tokens"] == 32


@pytest.mark.slow
def test_both_pass_the_gate(pte_bundle):
    parity = json.loads((pte_bundle / "parity.json").read_bytes())["variants"]
    assert parity["executorch-fp32"]["golden"]["max_abs"] < 1e-4
    assert parity["executorch-int8"]["golden"]["agreement"] > 0.95
    assert 0 < parity["executorch-int8"]["golden"]["max_abs"] < 0.5, "int8 is not fp32"


@pytest.mark.slow
def test_a_checkpoint_that_is_none_is_one_line(tmp_path):
    need_executorch()
    with pytest.raises(InputError, match=r"to_executorch failed: .*") as caught:
        export_variant("executorch-fp32", tmp_path, None, [16], tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
