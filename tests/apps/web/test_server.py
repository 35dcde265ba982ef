"""The service: answers, every refusal with its line, limits, crowds, headers, and the OpenAPI document."""

import json
import logging
import threading
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.web.config import ServeConfig
from apps.web.schemas import ClassifyReply, ErrorReply, HealthReply
from apps.web.server import create_app
from runtimes.errors import EngineError, InputError

KEY = "correct-horse-battery"
TEXT = "The striker scored two goals in the final."


# Answers


def test_one_text(client: TestClient) -> None:
    reply = client.post("/classify", json={"text": TEXT})
    assert reply.status_code == 200
    body = reply.json()
    answer = body["answers"][0]
    assert answer["label"] == "Sports"
    assert answer["score"] == pytest.approx(3.2 / 3.8)
    assert list(answer["scores"].values()) == sorted(answer["scores"].values(), reverse=True)
    assert len(answer["scores"]) == 4
    assert "explanation" not in answer
    assert body["model"]["variant"] == "onnx-int8"
    assert body["latency_ms"] >= 0


def test_batch_keeps_the_order(client: TestClient) -> None:
    texts = [TEXT, "Shares and profit", "The orbiter and the comet"]
    body = client.post("/classify", json={"texts": texts, "top_k": 1}).json()
    assert [answer["label"] for answer in body["answers"]] == ["Sports", "Business", "Sci/Tech"]
    assert all(len(answer["scores"]) == 1 for answer in body["answers"])


def test_explain_points_into_the_original_text(client: TestClient) -> None:
    text = "🏆  the STRIKER & <b>shares</b>"
    answer = client.post("/classify", json={"text": text, "explain": True}).json()["answers"][0]
    words = {word["text"]: word for word in answer["explanation"]["words"]}
    assert all(text[word["start"] : word["end"]] == word["text"] for word in words.values())
    label = answer["explanation"]["label"]
    assert words["STRIKER" if label == "Sports" else "shares"]["contribution"] > 0.1
    assert words["shares" if label == "Sports" else "STRIKER"]["contribution"] < 0


def test_inference_stays_off_the_event_loop_in_one_thread(
    model: Any, config: ServeConfig, client_of: Any
) -> None:
    client = client_of(create_app(model, config))
    for _ in range(5):
        client.post("/classify", json={"text": TEXT})
    assert len(model.threads) == 1
    assert threading.get_ident() not in model.threads


def test_health(client: TestClient) -> None:
    body = client.get("/health").json()
    assert body["ready"] is True
    assert body["uptime_s"] >= 0
    assert body["model"]["bundle"] == "news"
    assert body["labels"] == ["Business", "Sports", "World", "Sci/Tech"]
    assert body["limits"] == {
        "max_chars": 2000,
        "max_batch": 8,
        "max_body_bytes": 20_000,
        "per_minute": 1000,
    }
    assert body["key_required"] is False


def test_config_tightens_the_models_limits_and_never_widens_them(model: Any, client_of: Any) -> None:
    tight = client_of(create_app(model, ServeConfig(max_chars=5, max_batch=999_999, api_key=None)))
    limits = tight.get("/health").json()["limits"]
    assert (limits["max_chars"], limits["max_batch"]) == (5, 8)


# Refusals


@dataclass(frozen=True)
class Bad:
    name: str
    status: int
    error: str
    body: Any = b""
    method: str = "POST"
    path: str = "/classify"
    headers: tuple[tuple[str, str], ...] = ()


JSON = 'send {"text": "…"}'
BAD = [
    Bad("empty text", 422, '"text" is empty, or only white space and markup', {"text": ""}),
    Bad("white space", 422, '"text" is empty, or only white space and markup', {"text": " \n\t\u200b"}),
    Bad("markup only", 422, '"text" is empty, or only white space and markup', {"text": "<p> </p>"}),
    Bad("long text", 422, '"text" has 2001 characters and 2000 are allowed', {"text": "a" * 2001}),
    Bad("neither", 422, 'neither "text" nor "texts" is given; send', {}),
    Bad("null", 422, 'neither "text" nor "texts" is given; send', {"text": None}),
    Bad("both", 422, 'both "text" and "texts" are given; send one of them', {"text": "a", "texts": ["b"]}),
    Bad("empty batch", 422, '"texts" is empty; send at least one text', {"texts": []}),
    Bad("large batch", 422, '"texts" holds 9 texts and 8 are allowed; split it', {"texts": ["a"] * 9}),
    Bad("hole in batch", 422, '"texts[1]" is empty', {"texts": ["a", " "]}),
    Bad("long in batch", 422, '"texts[1]" has 2001 characters', {"texts": ["a", "b" * 2001]}),
    Bad("explain batch", 422, '"explain" takes one text at a time', {"texts": ["a"], "explain": True}),
    Bad("number as text", 422, 'the field "text" is wrong: input should be a valid string', {"text": 5}),
    Bad("number in batch", 422, 'the field "texts[1]" is wrong: input should be', {"texts": ["a", 5]}),
    Bad("text as batch", 422, 'the field "texts" is wrong: input should be a valid list', {"texts": "a"}),
    Bad("top_k 0", 422, 'the field "top_k" is wrong: input should be greater', {"text": "a", "top_k": 0}),
    Bad("top_k text", 422, 'the field "top_k" is wrong: input should be', {"text": "a", "top_k": "3"}),
    Bad("explain text", 422, 'the field "explain" is wrong: input', {"text": "a", "explain": "yes"}),
    Bad("unknown field", 422, 'unknown field "txet"; use "text" or "texts"', {"txet": "a"}),
    Bad("unknown field, long", 422, 'unknown field "' + "x" * 39 + "\\u2026", {"text": "a", "x" * 999: 1}),
    Bad("not JSON", 400, f"the body is not valid JSON at character 0 (Expecting value); {JSON}", b"hello"),
    Bad("cut JSON", 400, "the body is not valid JSON at character", b'{"text": "abc'),
    Bad("a list", 422, "the body must be one JSON object", ["a"]),
    Bad("a string", 422, "the body must be one JSON object", "a"),
    Bad("no body", 422, "the body must be one JSON object", b""),
    Bad("not UTF-8", 400, f"the body cannot be read as JSON in UTF-8; {JSON}", b'{"text": "\xff\xfe\xfd"}'),
    Bad("lone surrogate", 422, '"text" holds half a character', b'{"text": "\\ud800"}'),
    Bad("deep JSON", 400, "the body cannot be read as JSON", b'{"text": ' + b"[" * 9000 + b"]" * 9000 + b"}"),
    Bad("large body", 413, "the body is over 20000 bytes; send fewer", b'{"text": "' + b"a" * 20_000 + b'"}'),
    Bad("form", 415, "the body must be JSON", b"text=a", headers=(("Content-Type", "text/plain"),)),
    Bad("no type", 415, "the body must be JSON", b'{"text": "a"}', headers=(("Content-Type", ""),)),
    Bad("gzip", 415, "a compressed body", {"text": "a"}, headers=(("Content-Encoding", "gzip"),)),
    Bad("foreign host", 421, "this service answers on this machine only", {"text": "a"},
        headers=(("Host", "evil.example"),)),
    Bad("lookalike host", 421, "this service answers", {"text": "a"},
        headers=(("Host", "127.0.0.1.evil.io"),)),
    Bad("foreign host, page", 421, "this service answers", method="GET", path="/",
        headers=(("Host", "evil.example:8080"),)),
    Bad("get", 405, '"/classify" does not take this method; use POST', method="GET"),
    Bad("post health", 405, '"/health" does not take this method; use GET', path="/health"),
    Bad("unknown path", 404, 'there is no "/nothing" here; see /docs', method="GET", path="/nothing"),
    Bad("slash", 404, 'there is no "/classify/" here', {"text": "a"}, path="/classify/"),
    Bad("out of the page", 404, "there is no", method="GET", path="/page/%2e%2e/server.py"),
    Bad("unknown file", 404, 'there is no "/page/x.js" here', method="GET", path="/page/x.js"),
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_bad_request(client: TestClient, model: Any, bad: Bad, error_of: Any) -> None:
    content = bad.body if isinstance(bad.body, bytes) else json.dumps(bad.body).encode()
    headers = {"Content-Type": "application/json"} | dict(bad.headers)
    reply = client.request(bad.method, bad.path, content=content, headers=headers)
    assert reply.status_code == bad.status
    assert error_of(reply).startswith(bad.error)
    assert model.calls == 0
    assert "Content-Security-Policy" in reply.headers


def test_the_table_is_long_enough() -> None:
    assert len(BAD) >= 18
    assert len({bad.name for bad in BAD}) == len(BAD)


BODIES = st.one_of(
    st.binary(max_size=200),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["text", "texts", "top_k", "explain", "x"]), inner, max_size=4)
        ),
        max_leaves=8,
    ),
)


@given(BODIES)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_breaks_the_service(patient: TestClient, error_of: Any, body: Any) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = patient.post("/classify", content=content, headers={"Content-Type": "application/json"})
    assert reply.status_code in {200, 400, 422}
    if reply.status_code != 200:
        assert error_of(reply)


@pytest.fixture
def patient(model: Any, client_of: Any) -> TestClient:
    return client_of(create_app(model, ServeConfig(per_minute=100_000, api_key=None)))


def test_error_does_not_repeat_the_text(client: TestClient) -> None:
    for body in ({"text": "my secret", "y": 1}, {"text": ["my secret"]}, {"texts": {"my secret": 1}}):
        assert "my secret" not in client.post("/classify", json=body).text


# The model's own errors


def test_a_refusal_of_the_model_is_told(client: TestClient, model: Any, error_of: Any) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise InputError("text 1 holds no known word; write more")

    model.explain = refuse
    reply = client.post("/classify", json={"text": TEXT, "explain": True})
    assert (reply.status_code, error_of(reply)) == (422, "text 1 holds no known word; write more")


@pytest.mark.parametrize("error", [EngineError("my secret"), RuntimeError("my secret")])
def test_a_broken_engine_is_500_and_its_message_stays_out_of_reply_and_log(
    client: TestClient, model: Any, error: Exception, caplog: pytest.LogCaptureFixture, error_of: Any
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    model.explain = fail
    with caplog.at_level(logging.DEBUG):
        reply = client.post("/classify", json={"text": TEXT, "explain": True})
    assert reply.status_code == 500
    assert error_of(reply).startswith("the service failed inside")
    assert "my secret" not in reply.text + caplog.text
    assert type(error).__name__ in caplog.text
    assert client.post("/classify", json={"text": TEXT}).status_code == 200


def test_texts_are_never_logged(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        client.post("/classify?text=xyzzy", json={"text": "xyzzy"})
        client.post("/classify", json={"text": "xyzzy", "xyzzy": 1})
        client.get("/xyzzy")
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("edgewise")]
    assert [line.rsplit(" ", 2)[0] for line in ours] == [
        "POST /classify 200", "POST /classify 422", "GET - 404",
    ]  # fmt: skip
    assert not any("xyzzy" in line for line in ours)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_from_elsewhere_and_hold_no_inline_code(client: TestClient, path: str) -> None:
    html = client.get(path).text
    assert "<script>" not in html
    assert "style=" not in html
    assert 'src="http' not in html
    assert 'href="http' not in html


def test_docs_show_every_operation_and_escape(client: TestClient, model: Any, client_of: Any) -> None:
    html = client.get("/docs").text
    for shown in ("/classify", "/health", "curl http://127.0.0.1:8080/classify", "429", "top_k"):
        assert shown in html
    about = model.describe()
    model.describe = lambda: about | {"bundle": "<script>alert(1)</script>"}
    html = client_of(create_app(model, ServeConfig(api_key=None))).get("/docs").text
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html


def test_openapi_examples_are_answered_as_the_schema_says(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    content = document["paths"]["/classify"]["post"]["requestBody"]["content"]["application/json"]
    assert len(content["examples"]) == 3
    for example in content["examples"].values():
        reply = client.post("/classify", json=example["value"])
        assert reply.status_code == 200
        ClassifyReply.model_validate(reply.json(), strict=True)
    for path, method, reply in (("/classify", "post", ClassifyReply), ("/health", "get", HealthReply)):
        replies = document["paths"][path][method]["responses"]
        example = replies["200"]["content"]["application/json"]["example"]
        assert reply.model_validate(example, strict=True).model_dump(exclude_none=True) == example
    for example in document["components"]["schemas"]["ErrorReply"]["examples"]:
        assert ErrorReply.model_validate(example, strict=True).model_dump() == example


def test_openapi_lists_the_errors_and_the_key(client: TestClient, locked: TestClient) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/classify"]["post"]
    assert set(operation["responses"]) == {
        "200", "400", "401", "408", "413", "415", "422", "429", "503",
    }  # fmt: skip
    assert "security" not in operation
    assert locked.get("/openapi.json").json()["paths"]["/classify"]["post"]["security"]
