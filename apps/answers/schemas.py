"""Requests and replies, as the OpenAPI document says them, with examples that are really valid."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from runtimes.ask import MAX_PASSAGES, Answered, Found, Source

MAX_ANSWERS = 5
MAX_SOURCES = 10  # of one answer
MAX_METADATA = 20

PASSAGE = "The lighthouse was built in 1894 by Anna Berg, who lived in it until 1921."

ASK_EXAMPLES: dict[str, Any] = {
    "question": {"summary": "A question", "value": {"question": "Who built the lighthouse?"}},
    "narrowed": {
        "summary": "From some documents of one collection, reading more passages",
        "value": {
            "question": "Who built the lighthouse?",
            "collection": "documents",
            "where": {"language": "en"},
            "k": 20,
        },
    },
}
ANSWER_EXAMPLE: dict[str, Any] = {
    "question": "Who built the lighthouse?",
    "answers": [
        {
            "text": "Anna Berg",
            "confidence": 0.93,
            "sources": [
                {
                    "document": "harbour-guide",
                    "name": "guide.pdf",
                    "heading": "The harbour",
                    "passage": PASSAGE,
                    "start": 37,
                    "end": 46,
                    "document_start": 1237,
                }
            ],
        }
    ],
    "ask_back": None,
    "searched": 8,
    "latency_ms": 84.2,
}
DOCUMENT_EXAMPLE: dict[str, Any] = {
    "id": "harbour-guide",
    "name": "guide.pdf",
    "kind": "pdf",
    "metadata": {"language": "en"},
    "characters": 5312,
    "added": "2026-05-04T09:30:00+00:00",
}
JOB_EXAMPLE: dict[str, Any] = {
    "id": "5b1d0c6a2e9f4b77",
    "collection": "documents",
    "document": "harbour-guide",
    "name": "guide.pdf",
    "bytes": 48213,
    "state": "indexing",
    "passages": 12,
    "embedded": 8,
    "error": None,
}
COLLECTIONS_EXAMPLE: dict[str, Any] = {
    "role": "write",
    "collections": [{"name": "documents", "documents": 3, "passages": 41}],
}
HEALTH_EXAMPLE: dict[str, Any] = {
    "ready": True,
    "uptime_s": 12.5,
    "models": {"reader": {"bundle": "reader", "variant": "onnx-int8"}, "embedder": {"bundle": "embedder"}},
    "limits": {"max_upload_bytes": 33554432, "per_minute": 120, "queue": 64, "uploads": 64},
    "key_required": True,
}


class AskRequest(BaseModel):
    """A question about the documents of one collection; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    question: str = Field(description="In a sentence, up to 1,000 characters.")
    collection: str = Field("documents", description="Which collection to search.")
    where: dict[str, str] = Field(
        default_factory=dict,
        max_length=MAX_METADATA,
        description="Only documents whose metadata has these values.",
    )
    k: int | None = Field(None, ge=1, le=MAX_PASSAGES, description="How many passages to read.")


class SourceReply(BaseModel):
    """`passage[start:end]` is the answer, counted in Unicode code points."""

    document: str
    name: str
    heading: str
    passage: str
    start: int
    end: int
    document_start: int = Field(description="Where the answer stands in the document's text.")


class AnswerReply(BaseModel):
    text: str
    confidence: float = Field(ge=0, le=1, description="The probability that the answer is right.")
    sources: list[SourceReply] = Field(description="All places that say the same, the surest first.")


class AskReply(BaseModel):
    """Answers, the best first; none: not found in the documents."""

    question: str
    answers: list[AnswerReply]
    ask_back: str | None = Field(None, description="Where two answers are close: which of them is meant?")
    searched: int = Field(description="How many passages were read.")
    latency_ms: float = Field(description="From the question's arrival to its answer, the queue with it.")


class DocumentReply(BaseModel):
    id: str
    name: str
    kind: str
    metadata: dict[str, str]
    characters: int
    added: str = Field(description="When it was last written, in UTC.")


class FullDocumentReply(DocumentReply):
    passages: int
    text: str = Field(description="The plain text that was read out of the file.")


class DocumentsReply(BaseModel):
    documents: list[DocumentReply]
    next: str | None = Field(None, description="Give it as `after` for the next page; null on the last one.")


class JobReply(BaseModel):
    """An upload on its way."""

    id: str
    collection: str
    document: str | None = Field(None, description="Its id, as soon as it has one.")
    name: str
    bytes: int
    state: Literal["waiting", "reading", "indexing", "done", "failed"]
    passages: int = Field(description="How many the text was cut into; 0 while it is being read.")
    embedded: int = Field(description="How many of them are done.")
    error: str | None = None


class JobsReply(BaseModel):
    jobs: list[JobReply] = Field(description="One for each file, in their order.")


class DeletedReply(BaseModel):
    deleted: str


class CollectionRequest(BaseModel):
    """An empty collection is made."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(description="Up to 64 of a-z, 0-9, - and _.")


class CollectionReply(BaseModel):
    name: str
    documents: int
    passages: int


class CollectionsReply(BaseModel):
    role: Literal["read", "write", "admin"] = Field(description="What your key may do.")
    collections: list[CollectionReply]


class HealthReply(BaseModel):
    """What runs here, and the limits that hold."""

    ready: bool
    uptime_s: float
    models: dict[str, dict[str, Any]]
    limits: dict[str, int]
    key_required: bool


def ask_reply(answered: Answered, milliseconds: float) -> dict[str, Any]:
    """An answer in the words of the API."""
    return {
        "question": answered.question,
        "answers": [_answer(one) for one in answered.found[:MAX_ANSWERS]],
        "ask_back": answered.ask_back,
        "searched": answered.searched,
        "latency_ms": round(milliseconds, 1),
    }


def _answer(found: Found) -> dict[str, Any]:
    sources = [_source(one) for one in found.sources[:MAX_SOURCES]]
    return {"text": found.text, "confidence": round(found.confidence, 4), "sources": sources}


def _source(source: Source) -> dict[str, Any]:
    return {name: getattr(source, name) for name in SourceReply.model_fields}
