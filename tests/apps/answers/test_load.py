"""A short load on the service: no error, and no answer from a document whose delete had returned."""

from pathlib import Path

from apps.answers.load import load, table


def test_no_error_and_nothing_stale(answer_parts: dict[str, Path]) -> None:
    rows = load(answer_parts["reader"], answer_parts["embedder"], seconds=5, clients=8, filler="")
    assert [row.server for row in rows] == ["together", "one at a time"]
    for row in rows:
        assert row.errors == row.stale == row.refused == 0
        assert row.questions > 20 and row.added > row.deleted > 0
    assert len(table(rows).splitlines()) == 4
