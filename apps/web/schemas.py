"""Requests and replies, as the OpenAPI document says them, with examples that are really valid."""

import re
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from apps.web.replies import Refused
from runtimes.text import clean

REQUEST_EXAMPLES: dict[str, Any] = {
    "one text": {
        "summary": "One text",
        "value": {"text": "Shares rose after the bank reported a record profit."},
    },
    "explained": {
        "summary": "One text, two topics, and what each word did",
        "value": {"text": "The striker scored twice in the final.", "top_k": 2, "explain": True},
    },
    "batch": {
        "summary": "Several texts at once",
        "value": {
            "texts": [
                "The orbiter sent back its first pictures of the comet.",
                "Ministers met to talk about the ceasefire.",
            ]
        },
    },
}

MODEL_EXAMPLE: dict[str, Any] = {
    "bundle": "news",
    "task": "text-classification",
    "variant": "onnx-int8",
    "engine": "onnx",
    "engine_version": "1.23.0",
    "threads": 1,
    "providers": ["CPUExecutionProvider"],
    "precision": "int8",
}

ANSWER_EXAMPLE: dict[str, Any] = {
    "label": "Sports",
    "score": 0.97,
    "scores": {"Sports": 0.97, "World": 0.02},
    "explanation": {
        "label": "Sports",
        "score": 0.97,
        "words": [{"text": "striker", "start": 4, "end": 11, "contribution": 0.21}],
    },
}


CLASSIFY_EXAMPLE: dict[str, Any] = {"answers": [ANSWER_EXAMPLE], "model": MODEL_EXAMPLE, "latency_ms": 3.4}

HEALTH_EXAMPLE: dict[str, Any] = {
    "ready": True,
    "uptime_s": 12.5,
    "model": MODEL_EXAMPLE,
    "labels": ["World", "Sports", "Business", "Sci/Tech"],
    "limits": {"max_chars": 10000, "max_batch": 64, "max_body_bytes": 1048576, "per_minute": 120},
    "key_required": False,
}


class ClassifyRequest(BaseModel):
    """One text or several; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str | None = Field(None, description="One text. Give this or texts, not both.")
    texts: list[str] | None = Field(None, description="Several texts, answered in the same order.")
    top_k: int | None = Field(None, ge=1, description="Keep only the best K scores. All when left out.")
    explain: bool = Field(False, description="Say what each word did to the score. One text at a time.")


class WordReply(BaseModel):
    """A word and what it did: the probability that the label loses when the word is left out."""

    text: str
    start: int = Field(description="First character in the text, counted in Unicode code points.")
    end: int = Field(description="One past the last character.")
    contribution: float = Field(description="Positive: speaks for the label; negative: against it.")


class ExplanationReply(BaseModel):
    label: str
    score: float
    words: list[WordReply]


class AnswerReply(BaseModel):
    label: str
    score: float = Field(ge=0, le=1)
    scores: dict[str, float] = Field(description="Label to probability, best first.")
    explanation: ExplanationReply | None = None


class ModelReply(BaseModel):
    """What answered: bundle, variant, and the engine with what it really ran on."""

    bundle: str
    task: str
    variant: str | None
    engine: str
    engine_version: str | None
    threads: int | None
    providers: list[str]
    precision: str | None


class ClassifyReply(BaseModel):
    """One answer for each text, in order."""

    answers: list[AnswerReply]
    model: ModelReply
    latency_ms: float = Field(description="Time in the model for the whole request, without the queue.")


class LimitsReply(BaseModel):
    max_chars: int
    max_batch: int
    max_body_bytes: int
    per_minute: int


class HealthReply(BaseModel):
    """What runs here, and the limits that hold."""

    ready: bool
    uptime_s: float
    model: ModelReply
    labels: list[str]
    limits: LimitsReply
    key_required: bool


class ErrorReply(BaseModel):
    """What is wrong, where, and what to do next."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"error": '"texts" is empty; send at least one text'}]}
    )

    error: str


@dataclass(frozen=True)
class Limits:
    """The limits that hold for one request: the model's own, tightened by the config."""

    max_chars: int
    max_batch: int


def texts_of(request: ClassifyRequest, limits: Limits) -> list[str]:
    """The texts of a request, one or several. Raises Refused (422) for what the schema cannot say."""
    if request.text is not None and request.texts is not None:
        raise Refused(422, 'both "text" and "texts" are given; send one of them')
    if request.text is None and request.texts is None:
        raise Refused(422, 'neither "text" nor "texts" is given; send {"text": "…"} or {"texts": ["…"]}')
    if request.texts is None:
        check_text(request.text or "", "text", limits)
        return [request.text or ""]
    if request.explain:
        raise Refused(422, '"explain" takes one text at a time; send it as "text"')
    if not request.texts:
        raise Refused(422, '"texts" is empty; send at least one text')
    if len(request.texts) > limits.max_batch:
        count = len(request.texts)
        raise Refused(422, f'"texts" holds {count} texts and {limits.max_batch} are allowed; split it')
    for index, text in enumerate(request.texts):
        check_text(text, f"texts[{index}]", limits)
    return request.texts


def check_text(text: str, where: str, limits: Limits) -> None:
    """Raises Refused (422) for an empty or too long text, or one that no UTF-8 can hold."""
    if len(text) > limits.max_chars:
        line = f'"{where}" has {len(text)} characters and {limits.max_chars} are allowed; shorten it'
        raise Refused(422, line)
    half = re.search("[\ud800-\udfff]", text)
    if half:
        line = f'"{where}" holds half a character (a lone surrogate) at {half.start()}; send whole ones'
        raise Refused(422, line)
    if not clean(text):
        raise Refused(422, f'"{where}" is empty, or only white space and markup; write something in it')
