"""Keys: what is stored, who may what, what a revoked one opens; and the command."""

import json
import sqlite3
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.cli.main import run
from apps.web.keys import FILE, Keys
from runtimes.errors import InputError


def test_only_a_hash_is_stored_and_the_file_is_the_owners(folder: Path) -> None:
    kept = Keys(folder)
    key, text = kept.make("Ann", "write", ["manuals"], 30)
    assert kept.find(text) == key and key.per_minute == 30
    kept.close()
    secret = text[len("ew_12345678_") :]
    for path in folder.glob(f"{FILE}*"):
        assert secret.encode() not in path.read_bytes()
    assert stat.S_IMODE((folder / FILE).stat().st_mode) == 0o600
    with sqlite3.connect(folder / FILE) as file:
        assert len(file.execute("SELECT hash FROM keys").fetchone()[0]) == 32


def test_roles_and_collections(folder: Path) -> None:
    kept = Keys(folder)
    read, write, admin = (kept.make(role, role)[0] for role in ("read", "write", "admin"))
    assert [read.may(role) for role in ("read", "write", "admin")] == [True, False, False]
    assert [write.may(role) for role in ("read", "write", "admin")] == [True, True, False]
    assert [admin.may(role) for role in ("read", "write", "admin")] == [True, True, True]
    bound = kept.make("bound", "admin", ["one"])[0]
    assert bound.sees("one") and not bound.sees("two") and read.sees("two")


def test_a_revoked_key_opens_nothing_and_the_last_one_does_not_open_the_service(folder: Path) -> None:
    here, elsewhere = Keys(folder), Keys(folder)
    assert not here.needed()
    key, text = elsewhere.make("Ann")
    assert here.needed() and here.find(text) == key
    elsewhere.revoke(key.id)
    assert here.find(text) is None and here.needed()
    assert elsewhere.all()[0].revoked


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"name": " "}, "name must have 1 to 80"),
        ({"name": "a\nb"}, "name must have 1 to 80"),
        ({"role": "root"}, "there is no role 'root'; choose read, write, admin"),
        ({"collections": []}, "opens nothing"),
        ({"collections": ["../x"]}, "is no name for a collection"),
        ({"collections": ["News.2024"]}, "is no name for a collection"),
        ({"series": ["../x"]}, "is no name for a series"),
        ({"series": []}, "opens nothing"),
        ({"per_minute": 0}, "give 1 to"),
    ],
)
def test_keys_that_cannot_be(folder: Path, change: dict, error: str) -> None:
    with pytest.raises(InputError, match=error):
        Keys(folder).make(**{"name": "Ann", **change})


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> tuple[Keys, str]:
    kept = Keys(tmp_path_factory.mktemp("keys"))
    return kept, kept.make("Ann")[1]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_other_text_is_a_key(some: tuple[Keys, str], data: st.DataObject) -> None:
    kept, text = some
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters() | st.sampled_from("'\";%_-0"))
    changed = text[:place] + other + text[place + 1 :]
    assert (kept.find(changed) is not None) == (changed == text)
    assert kept.find(data.draw(st.text(max_size=80))) is None


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(["keys", str(folder), "--make", "Ann's laptop", "--role", "write", "--collection", "manuals"])
        == 0
    )
    text = capsys.readouterr().out.strip()
    key = Keys(folder).find(text)
    assert key is not None and key.role == "write" and key.collections == {"manuals"}
    assert run(["keys", str(folder)]) == 0
    listed = capsys.readouterr().out
    assert key.id in listed and "Ann's laptop" in listed and text not in listed
    assert run(["keys", str(folder), "--revoke", key.id, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["revoked"] and "hash" not in told and Keys(folder).find(text) is None
    assert run(["keys", str(folder), "--make", "pump", "--series", "Pump.1", "--series", "b"]) == 0
    assert Keys(folder).find(capsys.readouterr().out.strip()).collections == {"Pump.1", "b"}  # type: ignore[union-attr]
    assert run(["keys", str(folder), "--make", "Ann", "--collection", "News.2024"]) == 2
    assert "is no name for a collection" in capsys.readouterr().err
    assert run(["keys", str(folder), "--revoke", "nobody"]) == 2
    assert "there is no key 'nobody'" in capsys.readouterr().err


def test_a_file_that_is_none_is_one_line(folder: Path) -> None:
    folder.mkdir()
    (folder / FILE).write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match="is no file of keys"):
        Keys(folder)


def test_a_command_without_effect_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", str(folder)]) == 2
    assert "no keys were made here" in capsys.readouterr().err and not folder.exists()
    assert run(["keys", str(folder), "--role", "write"]) == 2
    assert "go with --make" in capsys.readouterr().err
