"""Reports of long work in a log."""

import logging
import re

import pytest

from costbank.progress import LogProgress


@pytest.mark.parametrize(
    ("unit", "lines"),
    [
        ("rows", [r"work: 1,500 of 3,000 \(50%\) rows, [\d,]+ rows/s, 0 s left", r"work: 1,500 rows in 0\.0 s"]),
        ("", [r"work: 0 s so far", r"work: 0\.0 s"]),
    ],
)
def test_numbers_are_logged_only_with_a_unit(caplog: pytest.LogCaptureFixture, unit: str, lines: list[str]):
    with caplog.at_level(logging.INFO, "costbank"), LogProgress(0).step("work", 3_000, unit) as step:
        step.advance(1_500)
    assert len(caplog.messages) == len(lines)
    for message, line in zip(caplog.messages, lines, strict=True):
        assert re.fullmatch(line, message), message
