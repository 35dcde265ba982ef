"""The load's verdict on its own figures."""

import pytest

from apps.monitor.load import faults

FINE = {"lost": 0, "errors": 0, "told_twice": 0, "sent_again": 0, "spikes": 10, "found": 10}


@pytest.mark.parametrize(
    ("change", "killed", "wrong"),
    [
        ({}, False, []),
        ({"sent_again": 2}, False, ["2 sent_again"]),
        ({"sent_again": 2}, True, []),
        ({"told_twice": 1}, True, ["1 told_twice"]),
        ({"lost": 3, "errors": 1}, False, ["3 lost", "1 errors"]),
        ({"found": 9}, False, ["1 not found"]),
    ],
)
def test_what_counts_as_a_fault(change: dict[str, int], killed: bool, wrong: list[str]) -> None:
    assert faults(FINE | change, killed) == wrong
