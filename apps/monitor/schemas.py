"""Requests and replies, as the OpenAPI document says them, with examples that are really valid."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

POINTS_EXAMPLES: dict[str, Any] = {
    "two series": {
        "summary": "Points of two series",
        "value": {
            "points": [
                {"series": "pump.pressure", "time": 1767225600, "values": [2.41]},
                {"series": "server-7", "time": "2026-01-01T00:00:00Z", "values": {"cpu": 12.5, "disk": None}},
            ]
        },
    }
}
SERIES_POINTS_EXAMPLES: dict[str, Any] = {
    "by column": {
        "summary": "Three points of two channels",
        "value": {
            "channels": ["cpu", "disk"],
            "times": [1767225600, 1767225601, 1767225602],
            "values": [[12.5, 0.4], [13.0, None], [12.1, 0.6]],
        },
    }
}
CSV_EXAMPLE = "pump.pressure,1767225600,2.41\nserver-7,2026-01-01T00:00:00Z,12.5,\n"
SERIES_CSV_EXAMPLE = "time,cpu,disk\n1767225600,12.5,0.4\n1767225601,13.0,\n"
TAKEN_EXAMPLE = {"stored": 2, "late": 0, "repeated": 0}
SERIES_EXAMPLE: dict[str, Any] = {
    "name": "server-7",
    "channels": ["cpu", "disk"],
    "state": "normal",
    "points": 86400,
    "late": 0,
    "repeated": 2,
    "last_time": 1767225602.0,
    "threshold": 1.94,
    "learned": 512,
    "step": 1.0,
    "open_alarm": None,
    "drifted": False,
    "values": [12.1, 0.6],
    "score": 0.41,
    "severity": 0.0,
    "warm_up": 512,
}
PARTS_EXAMPLE = {
    "forecast": 0.52, "recent": 0.21, "course": 0.02, "value": 0.15, "level": 0.06, "shape": 0.04,
    "spread": 0.0,
}  # fmt: skip
ALARM_EXAMPLE: dict[str, Any] = {
    "id": "3-1767225600-1",
    "series": "server-7",
    "start": 1767225600.0,
    "end": 1767225660.0,
    "peak_time": 1767225630.0,
    "score": 7.2,
    "severity": 0.91,
    "threshold": 1.94,
    "channels": [
        {"name": "cpu", "share": 0.93, "seen": 99.5, "expected": 12.7, "at": 1767225629.0},
        {"name": "disk", "share": 0.07, "seen": 0.6, "expected": 0.5, "at": 1767225630.0},
    ],
    "opened": 1767225602.1,
    "closed": 1767225725.2,
    "acked": None,
    "acked_by": None,
    "note": None,
    "parts": PARTS_EXAMPLE,
}
COLUMNS_EXAMPLE: dict[str, Any] = {
    "channels": ["cpu"],
    "times": [1767225600.0, 1767225601.0],
    "values": [[12.5], [13.0]],
    "scores": [0.4, 0.5],
    "severity": [0.0, 0.0],
    "expected": [[12.6], [12.7]],
}
PREVIEW_EXAMPLE: dict[str, Any] = {
    "threshold": 2.5,
    "alarms": 3,
    "per_day": 1.5,
    "now": {"threshold": 1.94, "alarms": 5, "per_day": 2.5},
    "periods": [[1767225600.0, 1767225660.0, 7.2]],
    "points": 172800,
    "days": 2.0,
}
EXPLAIN_EXAMPLE: dict[str, Any] = {
    "time": 1767225630.0,
    "score": 7.2,
    "severity": 0.91,
    "threshold": 1.94,
    "channels": ALARM_EXAMPLE["channels"],
    "parts": PARTS_EXAMPLE,
    "window": COLUMNS_EXAMPLE,
}
WEBHOOK_EXAMPLE: dict[str, Any] = {
    "id": "5b1d0c6a2e9f4b77",
    "url": "https://example.org/alerts",
    "series": None,
    "cool_down_s": 300.0,
    "made": 1767225600.0,
    "waiting": 0,
}
DELIVERY_EXAMPLE: dict[str, Any] = {
    "id": "0a6e2b1c9d8f7e55",
    "alarm": "3-1767225600-1",
    "series": "server-7",
    "kind": "opened",
    "state": "sent",
    "attempts": 1,
    "made": 1767225602.1,
    "due": 1767225602.1,
    "ended": 1767225602.3,
    "said": "status 200",
}
LOG_EXAMPLE: dict[str, Any] = {
    "id": 12,
    "at": 1767225602.1,
    "series": "server-7",
    "kind": "learned",
    "who": "edgewise",
    "detail": {"points": 512, "threshold": 1.94, "step": 1.0},
}
HEALTH_EXAMPLE: dict[str, Any] = {
    "ready": True,
    "uptime_s": 12.5,
    "model": {"bundle": "monitor", "variant": "onnx-int8"},
    "series": 3,
    "waiting_points": 0,
    "charts": True,
    "key_required": True,
    "limits": {"request_points": 5000, "max_body_bytes": 2097152, "max_series": 5000, "per_minute": 6000},
}


class Asked(BaseModel):
    """A request; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class TakenReply(BaseModel):
    """What became of the points. All that is stored is on the disk and scored."""

    stored: int
    late: int = Field(description="Older than the newest one of their series, and of a new time: dropped.")
    repeated: int = Field(
        description="Of a time that the series has a point of: dropped, the first one counts."
    )


class ThresholdRequest(Asked):
    """A threshold, or the times of known anomalies from which to find the best one."""

    threshold: float | None = Field(None, gt=0, le=1e6, description="null: the learned one again.")
    method: Literal["labelled"] | None = Field(None, description="With `windows`, instead of `threshold`.")
    windows: list[Annotated[list[float], Field(min_length=2, max_length=2)]] | None = Field(
        None, min_length=1, max_length=1000, description="[start, end] of each known anomaly, unix seconds."
    )


class RulesRequest(Asked):
    """When scores over the threshold make an alarm."""

    min_points: int = Field(ge=1, le=10_000, description="So many in a row over the threshold open an alarm.")
    cool_down_s: float = Field(ge=0, le=1e7, description="So long after an alarm no other one opens.")
    merge_gap_s: float = Field(ge=0, le=1e7, description="Calm of up to so long does not close an alarm.")


class RefitRequest(Asked):
    alarmed: bool = Field(False, description="Learn from the points of alarms too: they are normal now.")


class AckRequest(Asked):
    note: str = Field("", max_length=1000)


class WebhookRequest(Asked):
    url: str = Field(max_length=2000, description="https:// or http://, on a public address.")
    secret: str | None = Field(
        None, min_length=16, max_length=200, description="Signs the alerts; made and told once if left out."
    )
    series: list[str] | None = Field(None, min_length=1, max_length=1000, description="null: all of them.")
    cool_down_s: float = Field(300.0, ge=0, le=1e7, description="Between two alerts of one series.")


class ChannelReply(BaseModel):
    name: str
    share: float | None = Field(description="Of the score at the peak.")
    seen: float | None
    expected: float | None
    at: float = Field(description="When it was seen: the point farthest from what was expected.")


class AlarmReply(BaseModel):
    """Times in unix seconds. `end` and `closed` are null while it is open."""

    id: str
    series: str
    start: float
    end: float | None
    peak_time: float
    score: float
    severity: float
    threshold: float
    channels: list[ChannelReply]
    opened: float
    closed: float | None
    acked: float | None
    acked_by: str | None
    note: str | None
    parts: dict[str, float] | None = Field(
        description="Which evidence spoke, in shares of the score at the peak: errors of the forecast just "
        "now, recently and for long (course), the value, the level, the shape of the window, the spread."
    )


class AlarmsReply(BaseModel):
    alarms: list[AlarmReply] = Field(description="The newest first.")


class SeriesReply(BaseModel):
    name: str
    channels: list[str]
    state: Literal["learning", "normal", "alarm", "silent"]
    points: int
    late: int
    repeated: int
    last_time: float | None
    threshold: float | None
    learned: int | None = Field(description="From how many points; null while learning.")
    warm_up: int = Field(description="How many points it learns from.")
    step: float | None
    open_alarm: str | None
    drifted: bool = Field(description="It seems to have changed for good; a refit may help.")
    values: list[float | None] | None
    score: float | None
    severity: float | None


class SeriesListReply(BaseModel):
    series: list[SeriesReply]
    role: Literal["read", "write", "admin"] = Field(description="What your key may do.")
