"""`edgewise compress --analyse` and `--sparsity` on a tiny checkpoint, and the page in a real browser."""

import html.parser
import json
import re
import shutil

import pytest

from apps.cli.main import run
from trainers.checkpoint import open_checkpoint
from trainers.data import save_data

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def data(tiny_data, tmp_path_factory):
    return str(save_data(tiny_data, tmp_path_factory.mktemp("rows") / "data"))


@pytest.fixture(scope="module")
def made(tiny_checkpoint, data, tmp_path_factory):
    from pathlib import Path

    from apps.analysis import AnalyseConfig, analyse

    out = tmp_path_factory.mktemp("analysis") / "out"
    analyse(Path(tiny_checkpoint.path), data, out, AnalyseConfig(texts=4, rounds=3, rows=32))
    return out


def test_a_table_a_page_and_json(tiny_checkpoint, data, tmp_path, capsys):
    place = tmp_path / "page.html"
    argv = ["compress", "--analyse", str(tiny_checkpoint.path), "--data", data, "--rows", "32"]
    assert run([*argv, "--out", str(place)]) == 0
    out = capsys.readouterr().out
    assert "layer 2 feed-forward" in out and "standard error" in out and "on 32 rows" in out
    assert max(map(len, out.splitlines()[:15])) <= 100
    assert "layer 2 feed-forward" in place.read_text()
    assert run([*argv, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["schema"] == 1 and len(result["parts"]) == 8
    assert result["checkpoint"]["digest"] == open_checkpoint(tiny_checkpoint.path).digest
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_folder_of_page_picture_and_json(made):
    assert sorted(path.name for path in made.iterdir()) == ["analysis.html", "analysis.json", "analysis.png"]
    assert (made / "analysis.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    page = (made / "analysis.html").read_text()
    assert "default-src 'none'" in page
    addresses = set(re.findall(r"https?://[^\"'\s<]*", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}, "nothing to fetch"
    html.parser.HTMLParser().feed(page)


def test_a_model_that_was_trained_elsewhere(tiny_checkpoint, data, tmp_path, capsys):
    """A half-precision model folder, without our checkpoint.json: its own bytes are told."""
    from trainers.model import open_model

    place = tmp_path / "theirs"
    open_model(tiny_checkpoint.path).half().save_pretrained(place)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_checkpoint.path / name, place / name)
    argv = ["compress", "--analyse", str(place), "--data", data, "--rows", "16", "--json"]
    assert run(argv) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["checkpoint"]["name"] == "theirs"
    assert result["whole"]["bytes"] == 2 * result["whole"]["parameters"] and result["rest"]["bytes"] == 0


def test_names_are_escaped(made):
    from apps.analysis_page import page

    result = json.loads((made / "analysis.json").read_text())
    result["checkpoint"]["name"] = "<script>alert(1)</script>"
    result["data"]["name"] = "a & <b>"
    assert "<script" not in page(result) and "<b>," not in page(result)


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_runs_over_the_edge(made, width):
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": width, "height": 844})
        errors: list[str] = []
        opened.on("console", lambda message: message.type == "error" and errors.append(message.text))
        opened.goto((made / "analysis.html").as_uri())
        opened.locator("summary").click()
        assert opened.evaluate("document.documentElement.scrollWidth") <= width
        for size in opened.evaluate(_TEXT_SIZES):
            assert size >= (9 if width >= 390 else 7), "letters of a drawing, in pixels"
        browser.close()
        assert errors == []


_TEXT_SIZES = """Array.from(document.querySelectorAll('svg')).flatMap(svg => {
  const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  return Array.from(svg.querySelectorAll('text')).map(t => parseFloat(getComputedStyle(t).fontSize) * scale);
})"""


def test_a_mask_is_called_a_mask(tiny_checkpoint, data, tmp_path, capsys):
    place = tmp_path / "masked"
    argv = ["compress", str(tiny_checkpoint.path), "--data", data, "--out", str(place), "--epochs", "1"]
    assert run([*argv, "--sparsity", "0.5", "--mask", "2:4"]) == 0
    out = capsys.readouterr().out
    assert "mask    2:4: 50.0% of the encoder's weights are 0" in out
    assert "not smaller, and not faster" in out and "gzip -9" in out
    assert open_checkpoint(place).meta["lineage"][-1]["step"] == "mask"


@pytest.mark.parametrize(("more", "message"), [
    (["--analyse", "--layers", "1"], "--analyse does not go with what makes it smaller"),
    (["--analyse", "--sparsity", "0.5"], "--analyse does not go with --sparsity"),
    (["--sparsity", "0.5"], "give --out"),
    (["--sparsity", "1.5", "--out", "x"], "mask.sparsity = 1.5"),
    (["--sparsity", "0.5", "--mask", "luck", "--out", "x"], "must be one of global, layer, movement, 2:4"),
    (["--analyse", "--rows", "3"], "--rows"),
])  # fmt: skip
def test_bad_usage(tiny_checkpoint, data, tmp_path, capsys, monkeypatch, more, message):
    monkeypatch.chdir(tmp_path)
    assert run(["compress", str(tiny_checkpoint.path), "--data", data, *more]) == 2
    error = capsys.readouterr().err
    assert message in error and len([line for line in error.splitlines() if "edgewise:" in line]) == 1
    assert not list(tmp_path.iterdir())


def test_bad_places(tiny_checkpoint, data, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    (tmp_path / "folder.html").mkdir()
    argv = ["compress", "--analyse", str(tiny_checkpoint.path), "--data", data]
    assert run([*argv, "--out", str(tmp_path / "mine")]) == 2
    assert "no result of edgewise" in capsys.readouterr().err
    assert run([*argv, "--out", str(tmp_path / "folder.html")]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert run(["compress", "--analyse", str(tmp_path), "--data", data]) == 2
    assert "not a checkpoint" in capsys.readouterr().err
