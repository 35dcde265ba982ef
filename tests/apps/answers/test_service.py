"""The service end to end, over real tiny models: documents in, answers with their places out."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from answers_client import GRAIN, OIL, add, line_of, wait
from fastapi.testclient import TestClient

from apps.answers import schemas
from apps.answers.models import Models
from apps.answers.service import AnswersConfig, Service
from runtimes.errors import InputError

QUESTION = {"question": "Where is the refinery?"}


def names(client: TestClient, **query: Any) -> list[str]:
    return [one["name"] for one in client.get("/documents", params=query).json()["documents"]]


def read_from(reply: Any) -> set[str]:
    """The names of the documents in which an answer was read."""
    return {source["name"] for answer in reply.json()["answers"] for source in answer["sources"]}


def test_an_answer_and_its_place(client: TestClient) -> None:
    grain, oil = add(client, GRAIN, "grain.txt"), add(client, f"Zürich 🏔. {OIL}", "oil.txt")
    assert grain["state"] == oil["state"] == "done" and grain["passages"] == grain["embedded"] == 1
    reply = client.post("/ask", json=QUESTION)
    body = reply.json()
    assert reply.status_code == 200 and body["searched"] == 2 and read_from(reply)
    for source in (source for answer in body["answers"] for source in answer["sources"]):
        text = client.get(f"/documents/{source['document']}").json()["text"]
        answer = source["passage"][source["start"] : source["end"]]
        assert answer and text[source["document_start"] :].startswith(answer)
        assert text[source["document_start"] - source["start"] :].startswith(source["passage"])


def test_no_document_no_answer(client: TestClient) -> None:
    body = client.post("/ask", json=QUESTION).json()
    assert body["answers"] == [] and body["ask_back"] is None and body["searched"] == 0


@pytest.mark.parametrize(
    ("question", "line"),
    [
        ("", "the question is empty; ask in a sentence"),
        (" \n?", "the question is empty; ask in a sentence"),
        ("why", "'why' is too short for a question"),
        ("a " * 600, "the question has over 1000 characters"),
        ("half \ud800 a character", "the question holds half a character"),
    ],
)
def test_questions_that_cannot_be_answered(client: TestClient, question: str, line: str) -> None:
    content = json.dumps({"question": question}).encode()
    reply = client.post("/ask", content=content, headers={"Content-Type": "application/json"})
    assert line_of(reply, 422).startswith(line)


@pytest.mark.parametrize(
    ("body", "status", "line"),
    [
        ({}, 422, 'the field "question" is wrong: field required'),
        ({"question": 5}, 422, 'the field "question" is wrong'),
        ({**QUESTION, "k": 0}, 422, 'the field "k" is wrong'),
        ({**QUESTION, "k": 99}, 422, 'the field "k" is wrong'),
        ({**QUESTION, "where": {"a": 1}}, 422, 'the field "wherea" is wrong'),
        ({**QUESTION, "asked": 1}, 422, 'unknown field "asked"; use "question"'),
        ({**QUESTION, "collection": "nothing"}, 404, 'there is no collection "nothing"'),
        ({**QUESTION, "collection": "../documents"}, 404, "there is no collection"),
        (["a"], 422, 'the body must be one JSON object; send {"question"'),
    ],
)
def test_bad_requests(client: TestClient, body: Any, status: int, line: str) -> None:
    assert line_of(client.post("/ask", json=body), status).startswith(line)


def test_documents_are_listed_replaced_and_deleted(client: TestClient) -> None:
    for number in range(5):
        reply = client.put(f"/documents/d{number}", params={"name": f"{number}.txt"}, content=GRAIN)
        job = wait(client, reply.json()["jobs"][0])
        assert job["state"] == "done" and job["document"] == f"d{number}"
    page = client.get("/documents", params={"limit": 2}).json()
    assert [one["id"] for one in page["documents"]] == ["d0", "d1"] and page["next"] == "d1"
    assert client.get("/documents", params={"after": "d3"}).json()["next"] is None
    replaced = client.put("/documents/d1", params={"name": "oil.txt"}, content=OIL).json()["jobs"][0]
    assert wait(client, replaced)["state"] == "done"
    document = client.get("/documents/d1").json()
    assert document["text"] == OIL and document["name"] == "oil.txt" and document["passages"] == 1
    assert client.delete("/documents/d1").json() == {"deleted": "d1"}
    assert line_of(client.delete("/documents/d1"), 404) == line_of(client.get("/documents/d1"), 404)
    assert "oil.txt" not in names(client) + list(read_from(client.post("/ask", json=QUESTION)))


def test_many_files_in_one_form(client: TestClient) -> None:
    files = [("files", ("a.txt", GRAIN)), ("files", ("b.txt", OIL)), ("note", (None, "not a file"))]
    jobs = client.post("/documents", files=files, params={"metadata": '{"year": "2026"}'}).json()["jobs"]
    assert [wait(client, job)["state"] for job in jobs] == ["done", "done"]
    assert sorted(names(client)) == ["a.txt", "b.txt"] == sorted(names(client, where='{"year": "2026"}'))
    assert names(client, where='{"year": "1999"}') == []


def test_a_filter_narrows_the_answers(client: TestClient) -> None:
    add(client, GRAIN, "grain.txt", metadata='{"topic": "grain"}')
    add(client, OIL, "oil.txt", metadata='{"topic": "oil"}')
    for topic in ("grain", "oil"):
        reply = client.post("/ask", json=QUESTION | {"where": {"topic": topic}})
        assert reply.json()["searched"] == 1 and read_from(reply) <= {f"{topic}.txt"}
    assert client.post("/ask", json=QUESTION | {"where": {"topic": "'; --"}}).json()["searched"] == 0
    assert client.post("/ask", json=QUESTION | {"k": 1}).json()["searched"] == 1


@pytest.mark.parametrize(
    ("query", "body", "status", "line"),
    [
        ({}, GRAIN, 422, "a body that is the file itself needs its name"),
        ({"name": "a.txt"}, b"", 422, "a file is empty"),
        ({"name": "a.txt", "metadata": "x"}, GRAIN, 422, "metadata must be one JSON object of texts"),
        ({"name": "a.txt", "metadata": "[1]"}, GRAIN, 422, "metadata must be one JSON object of texts"),
        ({"name": "a.txt", "metadata": '{"a": 1}'}, GRAIN, 422, "metadata 'a' must be a text"),
        ({"name": "a.txt", "metadata": "[" * 5000}, GRAIN, 422, "metadata must be one JSON object of texts"),
        ({"name": "a.txt", "collection": "x"}, GRAIN, 404, 'there is no collection "x"'),
    ],
)
def test_bad_uploads(client: TestClient, query: Any, body: Any, status: int, line: str) -> None:
    assert line_of(client.post("/documents", params=query, content=body), status).startswith(line)
    assert names(client) == []


def test_a_form_that_is_none(client: TestClient) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    reply = client.post("/documents", content=b"no form", headers=headers)
    assert line_of(reply, 400).startswith("the multipart body cannot be read")
    reply = client.post("/documents", files=[("note", (None, "not a file"))])
    assert line_of(reply, 422).startswith("there is no file in the body")
    reply = client.post("/documents", content=b"no form", headers={"Content-Type": "multipart/form-data"})
    assert line_of(reply, 400).startswith("the multipart body cannot be read")
    many = [("files", (f"{number}.txt", "x")) for number in range(60)]
    assert line_of(client.post("/documents", files=many), 400).startswith("the multipart body cannot be read")


def test_a_file_that_cannot_be_read_fails_alone(client: TestClient, folder: Path) -> None:
    job = add(client, b"\x89PNG\r\n\x1a\n" + bytes(50), "broken.txt")
    assert job["state"] == "failed" and "broken.txt" in job["error"] and names(client) == []
    assert add(client, GRAIN)["state"] == "done"
    assert list((folder / "uploads").iterdir()) == []


def test_a_full_queue_of_uploads_is_refused(start: Callable[..., TestClient], folder: Path) -> None:
    client = start(config=AnswersConfig(per_minute=100_000, uploads=2))
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    with service.shelf.write_lock("documents"):  # the first job waits here
        jobs = [client.post("/documents", params={"name": "a.txt"}, content=GRAIN) for _ in range(2)]
        refused = client.post("/documents", params={"name": "a.txt"}, content=GRAIN)
        assert line_of(refused, 503).startswith("2 of 2 uploads wait already")
        assert refused.headers["Retry-After"] == "5"
        assert client.post("/ask", json=QUESTION).status_code == 200  # questions have their own queue
        assert len(list((folder / "uploads").iterdir())) == 2
    assert all(wait(client, job.json()["jobs"][0])["state"] == "done" for job in jobs)


def test_collections_are_made_listed_and_deleted(client: TestClient, folder: Path) -> None:
    assert client.post("/collections", json={"name": "manuals"}).status_code == 201
    add(client, OIL, "oil.txt", collection="manuals")
    listed = client.get("/collections").json()
    assert listed["role"] == "admin"
    assert listed["collections"] == [
        {"name": "documents", "documents": 0, "passages": 0},
        {"name": "manuals", "documents": 1, "passages": 1},
    ]
    assert client.post("/ask", json=QUESTION).json()["searched"] == 0
    assert client.post("/ask", json=QUESTION | {"collection": "manuals"}).json()["searched"] == 1
    taken = client.post("/collections", json={"name": "manuals"})
    assert line_of(taken, 409).startswith('there is a collection "manuals" already')
    assert client.delete("/collections/manuals").json() == {"deleted": "manuals"}
    assert line_of(client.delete("/collections/manuals"), 404).startswith("there is no collection")
    assert client.post("/collections", json={"name": "manuals"}).json()["documents"] == 0
    assert sorted(path.name for path in (folder / "collections").iterdir()) == ["documents", "manuals"]


def test_a_collection_of_another_embedder_is_indexed_anew(
    folder: Path, models: Models, start: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    with start() as client:
        add(client, OIL)
    monkeypatch.setattr(models, "digest", "another")
    client = start()
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    service.uploads.pool.submit(lambda: None).result()
    assert not service.shelf.stale
    assert service.shelf.store("documents").describe()["embedder"] == "another"
    assert client.post("/ask", json=QUESTION).json()["searched"] == 1


def test_two_services_do_not_share_a_folder(start: Callable[..., TestClient]) -> None:
    start()
    with pytest.raises(InputError, match="another service works on this folder"):
        start()


def test_what_was_indexed_is_there_after_a_restart(start: Callable[..., TestClient], folder: Path) -> None:
    with start() as client:
        add(client, OIL, "oil.txt")
    (folder / "uploads" / "left").write_bytes(b"cut off")
    client = start()
    assert names(client) == ["oil.txt"] and list((folder / "uploads").iterdir()) == []
    assert client.get("/jobs/5b1d0c6a2e9f4b77").status_code == 404


def test_metrics(client: TestClient) -> None:
    add(client, OIL)
    client.post("/ask", json=QUESTION)
    client.post("/ask", json={"question": ""})
    client.post("/ask", content=b"{}")
    client.get("/no/such")
    reply = client.get("/metrics")
    assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    text = reply.text
    sample = re.compile(r'edgewise_[a-z_]+(\{[a-z]+="[^"\n]*"(,[a-z]+="[^"\n]*")*\})? [0-9.e+-]+')
    assert all(line.startswith(("# HELP edgewise_", "# TYPE edgewise_")) or sample.fullmatch(line)
               for line in text.splitlines())  # fmt: skip
    assert 'edgewise_requests_total{path="/ask",status="200"} 1' in text
    assert 'edgewise_requests_total{path="/ask",status="422"} 1' in text
    assert 'edgewise_requests_total{path="/ask",status="415"} 1' in text  # refused at the door
    assert 'edgewise_requests_total{path="-",status="404"} 1' in text
    assert 'edgewise_uploads_total{outcome="done"} 1' in text
    assert (
        'edgewise_batch_questions_bucket{le="1.0"} 1' in text and "edgewise_batch_questions_count 1" in text
    )
    assert "edgewise_uploads_waiting 0" in text


def test_openapi_and_its_examples(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert {(path, method) for path, methods in document["paths"].items() for method in methods} == {
        ("/ask", "post"), ("/health", "get"), ("/metrics", "get"), ("/jobs/{id}", "get"),
        ("/documents", "get"), ("/documents", "post"), ("/documents/{id}", "get"),
        ("/documents/{id}", "put"), ("/documents/{id}", "delete"), ("/collections", "get"),
        ("/collections", "post"), ("/collections/{name}", "delete"),
    }  # fmt: skip
    for methods in document["paths"].values():
        for operation in methods.values():
            for status, reply in operation["responses"].items():
                content = reply.get("content", {}).get("application/json", {})
                if status.startswith("2") and content:
                    kind = getattr(schemas, content["schema"]["$ref"].rpartition("/")[2])
                    assert (
                        kind.model_validate(content["example"]).model_dump(exclude_none=True)
                        == content["example"]
                    )
    examples = document["paths"]["/ask"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    for example in examples.values():
        assert client.post("/ask", json=example["value"]).status_code == 200
    html = client.get("/docs").text
    assert all(
        shown in html for shown in ("/ask", "/documents/{id}", "collection (query)", "/look/style.css")
    )
    assert "<script" not in html


def test_a_damaged_collection_is_one_line(start: Callable[..., TestClient], folder: Path) -> None:
    (folder / "collections" / "documents").mkdir(parents=True)
    (folder / "collections" / "documents" / "index.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(InputError, match="no collection, or a damaged one"):
        start()
    shutil.rmtree(folder / "collections")
    assert start().get("/health").json()["ready"]


def test_metadata_in_the_form_is_not_lost_in_silence(client: TestClient, folder: Path) -> None:
    files = [("files", ("a.txt", OIL.encode()))]
    reply = client.post("/documents", files=files, data={"metadata": '{"topic": "oil"}'})
    assert "metadata goes into the query" in line_of(reply, 422)
    assert not [one for one in (folder / "uploads").iterdir() if one.is_file()] and not names(client)


def test_documents_are_readable_by_their_owner_only(client: TestClient, folder: Path) -> None:
    add(client, OIL, "oil.txt")
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "collections").stat().st_mode & 0o077 == 0
