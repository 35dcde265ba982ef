"""The pace beside others: each rival writes what it was asked for, and figures follow from the samples."""

import argparse
import json
import subprocess
import sys

import pytest

from apps.language import bits, pace
from apps.language.rivals import bundle, eager, memory
from runtimes.errors import EngineError, InputError


def samples(seconds: float, tokens: int = 4) -> list[dict[str, float]]:
    return [{"first_s": seconds, "rest_s": seconds, "rest": tokens, "prompt": tokens}] * 3


def test_figures_follow_from_the_samples():
    told = {(1, "bundle"): samples(1.0), (1, "llama"): samples(2.0), (1, "eager"): samples(9.0),
            (1, "memory"): [{"bytes": 8_000, "seconds": 1.0}] * 3}  # fmt: skip
    found = pace._told(told, 1, 1_000)
    assert found["rivals"]["bundle"] == {"decode_tokens_s": 4, "prefill_tokens_s": 4}
    assert found["rivals"]["llama"]["times"] == [2, 2, 2] == found["rivals"]["llama"]["prefill_times"]
    assert found["rivals"]["eager"]["times"] == [9, 9, 9] and found["share"] == 0.5
    page = pace.table({
        "device": {"name": "x"}, "variant": "int4", "weights_bytes": 1_000, "gguf_bytes": 2_000, "prompt": 4,
        "new": 4, "rounds": 3, "threads": [found],
    })  # fmt: skip
    assert "2.00 times as fast (2.00 to 2.00)" in page and "reaches 50% of it" in page
    assert "target met: 2.00 times llama.cpp, 1.5 wanted; threads 1" in page


def test_each_writes_as_many_tokens_as_it_was_asked_for(lm_bundles, lm_checkpoints):
    asked = {"ids": [5, 6, 7, 8], "new": 12}
    for rival in (bundle(lm_bundles["llama"], 1), eager(lm_checkpoints["llama"], 1)):
        told = rival(asked)
        assert told["prompt"] == 4 and 8 <= told["rest"] <= 12 and min(told["first_s"], told["rest_s"]) > 0
    probe = memory("4000000", 2)(asked)
    assert probe["bytes"] == 5 * 4_000_000 and probe["seconds"] > 0


def test_a_run_takes_turns_in_processes_of_their_own(lm_bundles):
    places = {"bundle": lm_bundles["llama"], "memory": 100_000}
    options = argparse.Namespace(threads=[1], rounds=2, new=8)
    found = pace._rounds(places, [5, 6, 7], options)
    assert {key: len(told) for key, told in found.items()} == {(1, kind): 2 for kind in places}
    json.dumps([told for rows in found.values() for told in rows])


def test_what_cannot_be_is_told(lm_bundles, tiny_bundle, tmp_path):
    with (
        pytest.raises(EngineError, match="edgewise does not start: .*no such bundle"),
        pace.rival("bundle", str(tmp_path / "none"), 1),
    ):
        pass
    options = argparse.Namespace(bundle=tiny_bundle, base=str(tmp_path), gguf=None, prompt=4)
    with pytest.raises(InputError, match="task text-classification"):
        pace.measure(options)
    options.bundle = lm_bundles["llama"]
    with pytest.raises(InputError, match="no GGUF of it at hand"):
        pace.measure(options)


@pytest.mark.parametrize("main", [pace.main, bits.main])
def test_what_is_not_there_is_one_line(main, tmp_path, capsys):
    nowhere = str(tmp_path / "none")
    words = [nowhere] if main is pace.main else ["--checkpoint", nowhere, "--data", nowhere]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and nowhere in line


def test_a_rival_that_hangs_or_ended_is_not_waited_for():
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=-1) as process:
        assert not pace._line(process, 0.1) and process.wait() < 0
    with (
        pytest.raises(EngineError, match="a rival ended in the middle"),
        pace.rival("memory", "4000", 1) as process,
    ):
        process.kill()
        process.wait()
        pace._turn(process, {"ids": [1], "new": 1})
