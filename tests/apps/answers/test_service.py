"""The service end to end, over real tiny models: documents in, answers with their places out."""

from answers_client import GRAIN, OIL, add
from fastapi.testclient import TestClient


def test_an_answer_and_its_place(client: TestClient) -> None:
    grain, oil = add(client, GRAIN, "grain.txt"), add(client, OIL, "oil.md")
    assert grain["state"] == oil["state"] == "done" and grain["passages"] == grain["embedded"] == 1
    reply = client.post("/ask", json={"question": "Where is the refinery?"})
    assert reply.status_code == 200
    body = reply.json()
    assert body["searched"] == 2 and body["latency_ms"] > 0
    for answer in body["answers"]:
        for source in answer["sources"]:
            assert source["passage"][source["start"] : source["end"]]
            text = client.get(f"/documents/{source['document']}").json()["text"]
            assert text[source["document_start"] :].startswith(
                source["passage"][source["start"] : source["end"]]
            )
