"""Lines of the log hold what happened, and nothing that a library quotes."""

from __future__ import annotations

import json
import logging
from typing import Any

from dicom_node.errors import SpoolError
from dicom_node.log import Format, JsonFormatter, PlainFormatter

QUOTED = "DOE^JOHN"


def formatted(formatter: logging.Formatter, message: str, *args: Any) -> str:
    try:
        try:
            raise ValueError(f"bad value {QUOTED}")  # noqa: TRY301
        except ValueError as cause:
            raise SpoolError("the disk is full") from cause
    except SpoolError as error:
        shown = (SpoolError, error, error.__traceback__)
    record = logging.LogRecord(
        "dicom_node.scp", logging.ERROR, "f.py", 1, message, args, shown
    )
    return formatter.format(record)


def test_an_event_is_an_object_with_what_it_names() -> None:
    line = formatted(
        JsonFormatter(), "sent instance=%s to=%s count=%d", '1.2"3', "a\nb", 7
    )
    assert "\n" not in line
    said = json.loads(line)
    assert said["event"] == "sent"
    assert (said["instance"], said["to"], said["count"]) == ('1.2"3', "a\nb", 7)
    assert said["message"] == 'sent instance=1.2"3 to=a\nb count=7'
    assert (said["level"], said["logger"]) == ("ERROR", "dicom_node.scp")
    assert said["error"] == "SpoolError"


def test_what_a_library_quotes_is_not_told() -> None:
    for formatter in (JsonFormatter(), PlainFormatter()):
        line = formatted(formatter, "refused instance=%s", "1.2.3")
        assert QUOTED not in line
        assert "SpoolError: the disk is full" in line
        assert "ValueError" in line
        assert "in formatted" in line


def test_a_message_that_is_no_event_is_a_message_all_the_same() -> None:
    said = json.loads(
        formatted(JsonFormatter(), "the %s is 100%% full: %s", "disk", "a")
    )
    assert said["message"] == "the disk is 100% full: a"
    assert [*Format] == ["plain", "json"]
