"""Who may not: wrong keys, other collections, foreign pages, hostile names, bodies, questions and files."""

import importlib.util
import json
import logging
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from answers_client import GRAIN, OIL, add, line_of, served, wait
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.answers import door
from apps.answers.models import Models
from apps.answers.service import AnswersConfig, create_app
from apps.answers.uploads import shown_name
from apps.web.keys import Keys
from runtimes.errors import InputError

QUESTION = {"question": "Where is the refinery?"}

# Every route that needs a key, and the least role that it needs.
ROUTES = [
    ("POST", "/ask", "read"),
    ("GET", "/documents", "read"),
    ("GET", "/documents/d1", "read"),
    ("POST", "/documents?name=a.txt", "write"),
    ("PUT", "/documents/d1?name=a.txt", "write"),
    ("DELETE", "/documents/d1", "write"),
    ("GET", "/jobs/5b1d0c6a2e9f4b77", "read"),
    ("GET", "/collections", "read"),
    ("POST", "/collections", "admin"),
    ("DELETE", "/collections/documents", "admin"),
    ("GET", "/metrics", "admin"),
]


def call(client: TestClient, method: str, path: str, key: str | None = None) -> Any:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    body = {"/ask": QUESTION, "/collections": {"name": "documents"}}.get(path, {})
    return client.request(method, path, json=body or None, headers=headers)


# Keys and roles


@pytest.mark.parametrize(("method", "path", "role"), ROUTES)
def test_no_key_no_route(
    start: Callable[..., TestClient], keys: dict[str, str], method: str, path: str, role: str
) -> None:
    client = start()
    wrong = [None, "", "x", keys["admin"][:-1], keys["admin"] + "x", keys["admin"].replace("ew_", "EW_")]
    lines = {line_of(call(client, method, path, key), 401) for key in wrong}
    assert len(lines) == 1 and lines.pop().startswith("the API key is missing or wrong")


def test_every_route_is_in_the_table(client: TestClient) -> None:
    listed = {
        (method.upper(), path)
        for path, methods in client.get("/openapi.json").json()["paths"].items()
        for method, about in methods.items()
        if about.get("security")
    }
    named = {(method, path.partition("?")[0]) for method, path, _ in ROUTES}
    concrete = {"{id}": ("d1", "5b1d0c6a2e9f4b77"), "{name}": ("documents",)}
    for method, path in listed:
        options = [path]
        for part, values in concrete.items():
            options = [one.replace(part, value) for one in options for value in values]
        assert any((method, one) in named for one in options), (method, path)


@pytest.mark.parametrize("role", ["read", "write"])
def test_roles(start: Callable[..., TestClient], keys: dict[str, str], role: str) -> None:
    client = start()
    order = ["read", "write", "admin"]
    for method, path, needed in ROUTES:
        reply = call(client, method, path, keys[role])
        if order.index(role) < order.index(needed):
            line = line_of(reply, 403)
            assert line == f"this key may {role}, and {needed} is needed; ask for such a key"
        else:
            assert reply.status_code != 403, path


def test_a_revoked_key_is_out_at_once(
    start: Callable[..., TestClient], keys: dict[str, str], folder: Path
) -> None:
    client = start(keys["read"])
    assert client.get("/collections").status_code == 200
    kept = Keys(folder)
    for key in kept.all():
        kept.revoke(key.id)
    assert client.get("/collections").status_code == 401
    del client.headers["Authorization"]
    assert client.get("/collections").status_code == 401  # no key left is not no key needed


def test_other_collections_cannot_be_told_from_none(
    start: Callable[..., TestClient], keys: dict[str, str]
) -> None:
    admin = start(keys["admin"])
    for name in ("secret", "other"):
        admin.post("/collections", json={"name": name})
    job = add(admin, OIL, "oil.txt", collection="secret")
    names = {"secret": "secret", "nothing": "nothing"}

    def tried(name: str) -> list[tuple[int, str]]:
        headers = {"Authorization": f"Bearer {keys['write']}"}
        query = {"collection": name, "name": "a.txt"}
        replies = [
            admin.post("/ask", json=QUESTION | {"collection": name}, headers=headers),
            admin.get("/documents", params=query, headers=headers),
            admin.get(f"/documents/{job['document']}", params=query, headers=headers),
            admin.post("/documents", params=query, content=GRAIN, headers=headers),
            admin.put("/documents/d1", params=query, content=GRAIN, headers=headers),
            admin.delete(f"/documents/{job['document']}", params=query, headers=headers),
        ]
        return [(reply.status_code, reply.text.replace(name, "")) for reply in replies]

    assert tried(names["secret"]) == tried(names["nothing"])
    assert {status for status, _ in tried("secret")} == {404}
    bound = {"Authorization": f"Bearer {keys['other']}"}
    assert [one["name"] for one in admin.get("/collections", headers=bound).json()["collections"]] == [
        "other"
    ]
    lost = admin.get(f"/jobs/{job['id']}", headers=bound)
    assert lost.status_code == 404
    assert lost.text.replace(job["id"], "") == admin.get("/jobs/x", headers=bound).text.replace("x", "", 1)
    for name in ("secret", "nothing"):
        reply = admin.post("/collections", json={"name": name}, headers=bound)
        assert line_of(reply, 403).startswith("this key is bound to other collections")
        assert admin.delete(f"/collections/{name}", headers=bound).status_code == 404


def test_each_key_has_its_own_rate(start: Callable[..., TestClient], folder: Path, models: Models) -> None:
    kept = Keys(folder)
    slow, quick = kept.make("slow", per_minute=2)[1], kept.make("quick", per_minute=1000)[1]
    client = start(config=AnswersConfig(per_minute=3), clock=lambda: 1000.0)

    def statuses(key: str, count: int) -> list[int]:
        return [call(client, "GET", "/collections", key).status_code for _ in range(count)]

    assert statuses(slow, 3) == [200, 200, 429]
    assert statuses(quick, 10) == [200] * 10
    assert statuses("wrong", 5) == [401, 401, 401, 429, 429]  # by address, and no key's rate is touched
    assert call(client, "GET", "/collections", slow).headers["Retry-After"] == "30"
    assert client.get("/health").status_code == 200


def test_the_network_needs_a_key(folder: Path, models: Models) -> None:
    from apps.answers.service import serve

    with pytest.raises(InputError, match="no API key is set; make one with `edgewise keys"):
        serve(folder, models, AnswersConfig(host="0.0.0.0", port=0))


def test_another_sites_page_may_not_write(client: TestClient) -> None:
    for method, path, _ in ROUTES:
        if method == "GET":
            continue
        reply = client.request(method, path, headers={"Origin": "http://evil.example"}, content=b"x")
        assert line_of(reply, 403).startswith("a page of another site may not write here")
    assert add(client, GRAIN)["state"] == "done"
    own = {"Origin": "http://127.0.0.1:8080"}
    assert client.post("/ask", json=QUESTION, headers=own).status_code == 200
    assert client.get("/documents", headers={"Host": "evil.example"}).status_code == 421


# Names


NAMES = [
    ("../../etc/passwd.txt", "passwd.txt"),
    ("..\\..\\boot.txt", "boot.txt"),
    ("/etc/shadow.txt", "shadow.txt"),
    ("C:\\secret.txt", "secret.txt"),
    ("....//....//x.txt", "x.txt"),
    ("%2e%2e%2fx.txt", "%2e%2e%2fx.txt"),
    (".hidden.txt", "hidden.txt"),
    ("a\x00b.txt", "a b.txt"),
    ("a\r\nX: y.txt", "y.txt"),
    ("\u202egnp.txt", "gnp.txt"),
    ("<img src=x onerror=alert(1)>.txt", "<img src=x onerror=alert(1)>.txt"),
    ("x" * 300 + ".txt", "x" * 196 + ".txt"),
]


@pytest.mark.parametrize(("given_name", "shown"), NAMES, ids=range(len(NAMES)))
def test_names_are_no_paths(client: TestClient, folder: Path, given_name: str, shown: str) -> None:
    before = {path for path in folder.parent.rglob("*") if "sqlite" not in path.name}
    assert add(client, GRAIN, given_name)["state"] == "done"
    assert [one["name"] for one in client.get("/documents").json()["documents"]] == [shown]
    reply = client.post("/documents", files=[("files", (given_name, GRAIN))])
    assert wait(client, reply.json()["jobs"][0])["state"] == "done"
    assert {path for path in folder.parent.rglob("*") if "sqlite" not in path.name} == before


@given(st.text(max_size=300))
def test_a_shown_name_is_always_one_plain_line(name: str) -> None:
    from apps.answers.documents import check_name

    check_name(shown_name(name))


@pytest.mark.parametrize(
    "id",
    ["..", ".", "../d1", "%2e%2e", "a/b", "a%2fb", "d1'; DROP TABLE documents; --", "x" * 150, "a b", "é"],
)
def test_ids_are_no_paths(client: TestClient, id: str) -> None:
    reply = client.put(f"/documents/{id}", params={"name": "a.txt"}, content=GRAIN)
    assert reply.status_code in (404, 405, 422)
    assert client.get(f"/documents/{id}").status_code in (200, 404)
    assert client.delete(f"/documents/{id}").status_code in (404, 405)
    assert client.get("/documents").json()["documents"] == []


@pytest.mark.parametrize("name", ["../x", "a/b", "A", "", "x" * 65, ".gone-1", "a.b", "nul\x00", "é", "a b"])
def test_collections_are_no_paths(client: TestClient, folder: Path, name: str) -> None:
    reply = client.post("/collections", json={"name": name})
    assert "is no name for a collection" in line_of(reply, 422)
    assert [path.name for path in (folder / "collections").iterdir()] == ["documents"]


@pytest.mark.parametrize("path", ["/page/%2e%2e/service.py", "/look/../server.py", "/page/..%2fkeys.py"])
def test_no_file_beside_the_page(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


# Bodies


def test_oversized_uploads(start: Callable[..., TestClient], folder: Path) -> None:
    client = start(config=AnswersConfig(per_minute=100_000, max_upload_bytes=10_000))
    for more in ({"content": b"a" * 10_001}, {"files": [("files", ("a.txt", b"a" * 10_000))]}):
        reply = client.post("/documents", params={"name": "a.txt"}, **more)
        line = "the body is over 10000 bytes; send fewer or smaller files at a time"
        assert line_of(reply, 413) == line
    parts = (b"a" * 3000 for _ in range(5))  # no length is announced
    assert client.put("/documents/d", params={"name": "a.txt"}, content=parts).status_code == 413
    assert (
        client.post("/ask", content=b"x" * 70_000, headers={"Content-Type": "application/json"}).status_code
        == 413
    )
    assert list((folder / "uploads").iterdir()) == []


HEAD = b"POST /documents?name=a.txt HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def test_slow_and_broken_uploads(folder: Path, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "UPLOAD_SECONDS", 0.3)
    app = create_app(folder, models)
    with served(app) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as slow:
            slow.sendall(HEAD + b"Content-Length: 100\r\n\r\nfirst")
            assert b"408 " in slow.recv(65_536).split(b"\r\n")[0]
        with socket.create_connection(("127.0.0.1", port), timeout=10) as broken:
            broken.sendall(HEAD + b"Content-Length: 100\r\n\r\nfirst")
        with socket.create_connection(("127.0.0.1", port), timeout=10) as huge:
            huge.sendall(HEAD + b"Content-Length: 99999999999\r\n\r\n")
            assert b"413 " in huge.recv(65_536).split(b"\r\n")[0]
        assert app.state.service.uploads.count() == 0
    assert list((folder / "uploads").iterdir()) == []


# Questions


SYNTAX = [
    '"', '" OR "', "refinery*", "refinery AND oil", "NEAR(refinery oil, 2)", "text : refinery", "^refinery",
    "-refinery", "(refinery", "{text} : oil", "'; DROP TABLE passages; --", "refinery\x00oil", "a' OR '1'='1",
    "%s %d {0} $1 ?1 :name @p", "\\\" oil", "* *", "oil NOT refinery",
    "refinery) UNION SELECT hash FROM keys --",
]  # fmt: skip


def test_questions_are_data(client: TestClient) -> None:
    add(client, OIL, "oil.txt")
    before = client.get("/documents").json()
    for syntax in SYNTAX:
        reply = client.post("/ask", json={"question": f"where is the refinery {syntax}"})
        assert reply.status_code == 200 and reply.json()["searched"] == 1, syntax
        filtered = client.post("/ask", json=QUESTION | {"where": {syntax: syntax}})
        assert filtered.status_code == 200 and filtered.json()["searched"] == 0, syntax
        assert client.get("/documents", params={"after": syntax}).status_code == 200
    assert client.get("/documents").json() == before


@given(
    st.text(max_size=200) | st.sampled_from(SYNTAX), st.dictionaries(st.text(max_size=9), st.text(max_size=9))
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_question_breaks_the_service(client: TestClient, question: str, where: dict[str, str]) -> None:
    body = json.dumps({"question": question, "where": where}).encode()
    reply = client.post("/ask", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code in (200, 422)


# What is written down


def test_the_audit_tells_writes_and_no_texts(
    start: Callable[..., TestClient], keys: dict[str, str], folder: Path
) -> None:
    client = start(keys["admin"])
    client.post("/collections", json={"name": "manuals"})
    job = add(client, OIL, "xyzzy.txt", collection="manuals", metadata='{"xyzzy": "xyzzy"}')
    client.post("/ask", json={"question": "where is xyzzy?"})
    client.get("/documents", params={"collection": "manuals"})
    client.delete(f"/documents/{job['document']}", params={"collection": "manuals"})
    client.delete("/collections/manuals")
    text = (folder / "audit.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    told = [(row["action"], row["outcome"], row.get("document"), row.get("bytes")) for row in rows]
    assert told == [
        ("create", "asked", None, None), ("create", "done", None, None),
        ("add", "asked", None, len(OIL)), ("add", "done", job["document"], len(OIL)),
        ("delete", "asked", job["document"], None), ("delete", "done", job["document"], None),
        ("drop", "asked", None, None), ("drop", "done", None, None),
    ]  # fmt: skip
    admin = next(key for key in Keys(folder).all() if key.name == "admin")
    assert {row["key"] for row in rows} == {admin.id} and all(row["at"].startswith("20") for row in rows)
    assert {row["collection"] for row in rows} == {"manuals"}
    assert "xyzzy" not in text and "refinery" not in text and keys["admin"] not in text


def test_nothing_of_a_question_or_a_text_is_logged(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        add(client, "xyzzy is the word. " + OIL, "xyzzy.txt", metadata='{"xyzzy": "1"}')
        client.post("/ask?xyzzy=1", json={"question": "where is xyzzy?"})
        client.post("/ask", json={"question": "xyzzy"})
        client.get("/documents/xyzzy")
        client.get("/xyzzy")
        client.delete("/documents/xyzzy")
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("edgewise")]
    assert any(line.startswith("POST /ask 200") for line in ours)
    assert any(line.startswith("GET /documents/{id} 404") for line in ours)
    assert not any("xyzzy" in line for line in ours)
    assert "xyzzy" not in client.get("/metrics").text


def test_a_fault_inside_tells_no_text(
    client: TestClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("xyzzy")

    service = client.app.state.service  # type: ignore[attr-defined]
    monkeypatch.setattr(service.models, "embedder", fail)
    with caplog.at_level(logging.DEBUG):
        assert line_of(client.post("/ask", json=QUESTION), 500).startswith("the service failed inside")
        job = add(client, OIL)
    assert job["state"] == "failed" and job["error"].startswith("the service failed inside")
    assert "RuntimeError at test_security.py" in caplog.text and "xyzzy" not in caplog.text + job["error"]


def test_security_headers(client: TestClient) -> None:
    for path in ("/", "/docs", "/health", "/page/app.js", "/look/style.css", "/documents", "/nothing"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["X-Frame-Options"] == "DENY"
    html = client.get("/").text
    assert "<script>" not in html and "style=" not in html and 'src="http' not in html


# Files


def hostile() -> dict[str, tuple[Any, str, str | None]]:
    """The table of the readers' own tests: what, its bytes, its name, what is said."""
    path = Path(__file__).with_name("test_hostile.py")
    spec = importlib.util.spec_from_file_location("hostile_files", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.HOSTILE


def test_hostile_files_through_the_upload(client: TestClient, folder: Path) -> None:
    kinds = hostile()
    assert len(kinds) >= 25
    good = add(client, GRAIN, "good.txt")["document"]
    for kind, (data, name, expected) in kinds.items():
        content = data() if callable(data) else data
        reply = client.post("/documents", params={"name": name}, content=content)
        if reply.status_code != 202:
            assert line_of(reply, 422) == "a file is empty; send one with text in it", kind
            continue
        job = wait(client, reply.json()["jobs"][0])
        if expected is None:  # read or refused
            continue
        assert job["state"] == "failed" and "\n" not in job["error"], kind
        assert re.search(expected, job["error"]) and job["error"].startswith(name), kind
    found = {one["id"]: one["name"] for one in client.get("/documents").json()["documents"]}
    odd = [name for _, name, expected in kinds.values() if expected is None]
    assert found.pop(good) == "good.txt" and len(found) <= len(odd)
    assert list((folder / "uploads").iterdir()) == []
    assert client.post("/ask", json=QUESTION).status_code == 200
