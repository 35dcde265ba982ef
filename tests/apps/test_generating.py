"""`edgewise run` with a model that writes: answers as they come, a chat in a pipe and in a terminal."""

import io
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apps.cli.generating import shown
from apps.cli.main import run
from runtimes.bundle import MANIFEST, seal
from runtimes.load import load

ROOT = Path(__file__).parents[2]
LONG = ("--temperature", "1", "--seed", "4", "--max-new-tokens", "12")


def piped(monkeypatch, data: bytes):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def one_line(capsys):
    (line,) = capsys.readouterr().err.splitlines()
    return line


def saying(bundle, copy, **generation):
    """The same bundle with other words in its manifest's `generation`."""
    shutil.copytree(bundle, copy)
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["generation"].update(generation)
    seal(copy, manifest, list(manifest["files"]))
    return copy


def test_an_answer_is_printed_as_the_template_asks_for_it(lm_bundles, capsys):
    bundle, model = lm_bundles["llama"], load(lm_bundles["llama"], threads=1)
    how = {"temperature": 1.0, "seed": 4, "max_new_tokens": 12}
    assert run(["run", str(bundle), "the cat", *LONG]) == 0
    asked = [{"role": "user", "content": "the cat"}]
    assert capsys.readouterr().out == shown(model(asked, **how).text) + "\n"
    assert run(["run", str(bundle), "the cat", "--raw", *LONG]) == 0
    assert capsys.readouterr().out == shown(model("the cat", **how).text) + "\n"
    assert run(["run", str(bundle), "the cat", "--system", "big", *LONG]) == 0
    wanted = model([{"role": "system", "content": "big"}, *asked], **how)
    assert capsys.readouterr().out == shown(wanted.text) + "\n"


def test_the_answer_comes_as_it_is_written(lm_bundles, monkeypatch):
    written = []

    class Screen(io.StringIO):
        def write(self, text):
            written.append(text)
            return len(text)

    monkeypatch.setattr(sys, "stdout", Screen())
    assert run(["run", str(lm_bundles["llama"]), "the cat", *LONG]) == 0
    assert len([piece for piece in written if piece]) > 3


def test_several_prompts_and_json(lm_bundles, monkeypatch, capsys):
    piped(monkeypatch, "the cat\n\na dog 東\n".encode())
    assert run(["run", str(lm_bundles["gpt2"]), "--json", "--stop", "zzz", *LONG]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["prompt"] for row in rows] == ["the cat", "a dog 東"]
    assert all(row["finish"] in ("length", "end") and row["tokens"] for row in rows)
    assert run(["run", str(lm_bundles["gpt2"]), "the cat", "a dog 東", *LONG]) == 0
    assert capsys.readouterr().out == "".join(f"> {row['prompt']}\n{shown(row['text'])}\n" for row in rows)


def test_a_checkpoint_answers_by_its_own_template(lm_checkpoints, lm_bundles, capsys):
    for path in (lm_checkpoints["llama"], lm_bundles["llama"]):
        assert run(["run", str(path), "the cat", *LONG]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second


def test_a_chat_in_a_pipe_remembers_and_obeys(lm_bundles, monkeypatch, capsys):
    lines = ["the cat", "/system big", "a dog", "fish", "/reset", "fish", "/what", "/exit", "the cat"]
    piped(monkeypatch, "\n".join(lines).encode())
    assert run(["run", str(lm_bundles["llama"]), "--chat", "--json", *LONG]) == 0
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["user"] for row in rows] == ["the cat", "a dog", "fish", "fish"]
    assert rows[2]["prompt_tokens"] > rows[3]["prompt_tokens"] > rows[0]["prompt_tokens"]
    assert "/reset begins anew" in err


def test_ctrl_c_stops_the_answer_and_not_the_chat(lm_bundles, monkeypatch):
    class Screen(io.StringIO):
        """Somebody presses Ctrl-C when the first piece appears."""

        pressed = False

        def write(self, text):
            if text and not self.pressed:
                self.pressed = True
                os.kill(os.getpid(), signal.SIGINT)
            return super().write(text)

    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    piped(monkeypatch, b"the cat\nthe cat\n")
    before = signal.getsignal(signal.SIGINT)
    how = ["--temperature", "1", "--seed", "4", "--max-new-tokens", "40"]
    assert run(["run", str(lm_bundles["llama"]), "--chat", *how]) == 0
    assert signal.getsignal(signal.SIGINT) is before
    model = load(lm_bundles["llama"], threads=1)
    whole = model([{"role": "user", "content": "the cat"}], temperature=1.0, seed=4, max_new_tokens=40)
    first, _, rest = screen.getvalue().partition("\n")
    assert shown(whole.text).startswith(first) and len(first) < len(whole.text) and rest.strip()


def test_a_chat_in_a_terminal(lm_bundles):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "apps.cli", "run", str(lm_bundles["llama"]), "--chat", *LONG]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT,
                          start_new_session=True, env={**os.environ, "TERM": "dumb"}) as chat:  # fmt: skip
        os.close(theirs)
        try:
            assert "/reset begins anew" in until(ours, b"> ")
            os.write(ours, b"the cat\n")
            assert len(until(ours, b"> ").splitlines()) > 1
            os.write(ours, b"/system big\n")
            assert "with these instructions" in until(ours, b"> ")
            os.write(ours, b"a dog " * 200 + b"\n")
            assert "edgewise: the prompt has" in until(ours, b"> ")
            for _ in range(20):  # one that comes just before readline waits is seen at the next one only
                os.killpg(chat.pid, signal.SIGINT)
                if select.select([ours], [], [], 1)[0]:
                    break
            assert "Ctrl-D or /exit ends the chat" in until(ours, b"> ")
            os.write(ours, b"\x04")
            assert chat.wait(20) == 0
        finally:
            chat.kill()
            os.close(ours)


def until(terminal, mark: bytes, seconds: float = 30) -> str:
    """What the terminal shows, up to a line that begins with the mark."""
    shown_there, end = b"", time.monotonic() + seconds
    while not shown_there.replace(b"\r", b"").endswith(b"\n" + mark):
        assert select.select([terminal], [], [], max(0, end - time.monotonic()))[0], shown_there
        shown_there += os.read(terminal, 4096)
    return shown_there.decode(errors="replace")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["x", "--top-p", "3"], "top_p must be from 0 to 1"),
        (["x", "--seed", "-1"], "seed must be a whole number"),
        (["x", "--overflow", "round"], "overflow must be error or slide"),
        (["x", "--stop", ""], "stop takes 16 texts at most"),
        (["x", "--raw", "--system", "y"], "--system needs the chat template"),
        (["x", "--explain"], "--explain is for text-classification"),
        (["x", "--chat"], "--chat takes its messages from the terminal"),
        (["word " * 300], "over the 191 that it can have; shorten it"),
        (["x", "--engine", "litert"], "no variant for engine 'litert'"),
    ],
)
def test_what_cannot_be_is_one_line(lm_bundles, capsys, words, told):
    assert run(["run", str(lm_bundles["llama"]), *words]) == 2
    assert told in one_line(capsys)


@pytest.mark.parametrize("chat", [[], ["--chat"]])
def test_broken_utf_8_is_one_line(lm_bundles, monkeypatch, capsys, chat):
    piped(monkeypatch, b"the c\xff\xfeat\n")
    assert run(["run", str(lm_bundles["llama"]), *chat]) == 2
    assert "not UTF-8 (byte 5); convert it" in one_line(capsys)


def test_options_of_generators_are_for_generators(tiny_bundle, capsys, monkeypatch):
    assert run(["run", str(tiny_bundle), "wheat", "--temperature", "0"]) == 2
    assert "--temperature is for text-generation, not text-classification" in one_line(capsys)
    piped(monkeypatch, b"hello\n")
    assert run(["run", str(tiny_bundle), "--chat"]) == 2
    assert "--chat is for text-generation" in one_line(capsys)


def test_a_chat_slides_or_says_what_it_cannot(lm_bundles, tmp_path, monkeypatch, capsys):
    bundle = saying(lm_bundles["llama"], tmp_path / "lm.bundle", eos=[])
    for word, told in (("banana", "overflow must be error or slide"), ("error", "leave out --overflow")):
        piped(monkeypatch, b"the cat\n")
        assert run(["run", str(bundle), "--chat", "--overflow", word]) == 2
        assert told in one_line(capsys)
    how = ["--temperature", "3", "--seed", "2", "--max-new-tokens", "250", "--json"]
    for more, told in (([], "context"), (["--overflow", "slide"], "length")):
        piped(monkeypatch, b"the cat\n")
        assert run(["run", str(bundle), "--chat", *how, *more]) == 0
        assert json.loads(capsys.readouterr().out)["finish"] == told


def test_top_k_0_draws_from_all_and_prints_no_labels(lm_bundles, tiny_bundle, tmp_path, capsys):
    copy = saying(lm_bundles["llama"], tmp_path / "lm.bundle", sampling={"temperature": 1.0, "top_k": 1})
    how = ["the cat", "--raw", "--seed", "4", "--max-new-tokens", "12"]
    assert run(["run", str(copy), *how, "--top-k", "0"]) == 0
    wanted = load(lm_bundles["llama"], threads=1)("the cat", temperature=1.0, seed=4, max_new_tokens=12)
    assert capsys.readouterr().out == shown(wanted.text) + "\n"
    assert run(["run", str(tiny_bundle), "wheat", "--top-k", "0"]) == 2
    assert "--top-k must be 1 or more with text-classification" in one_line(capsys)


def test_a_model_without_template_goes_on_and_does_not_chat(lm_bundles, tmp_path, monkeypatch, capsys):
    copy = saying(lm_bundles["llama"], tmp_path / "lm.bundle", template=None)
    assert run(["run", str(copy), "the cat", *LONG]) == 0
    capsys.readouterr()
    piped(monkeypatch, b"hello\n")
    assert run(["run", str(copy), "--chat"]) == 2
    assert "no chat template, so it does not converse" in one_line(capsys)


def test_marks_that_steer_a_terminal_are_shown_and_not_obeyed():
    assert shown("a\tb\n東 🚀") == "a\tb\n東 🚀"
    assert shown("\x1b]0;x\x07 \x9b2J\r") == "\\x1b]0;x\\x07 \\x9b2J\\x0d"
