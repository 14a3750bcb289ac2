"""What is sent by STOW-RS, and what is made of the answers of servers."""

import json
from datetime import UTC, datetime, timedelta
from email.parser import BytesParser
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.stow_message import (
    UNSAID,
    AnswerError,
    Kind,
    Outcome,
    body,
    body_size,
    content_type,
    outcomes,
    retry_after,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@given(st.lists(st.lists(st.binary(min_size=1, max_size=50), max_size=3), max_size=4))
def test_a_body_is_as_long_as_it_was_said_to_be(files: list[list[bytes]]) -> None:
    sent = b"".join(body("b0undary", files))
    assert len(sent) == body_size("b0undary", [len(b"".join(f)) for f in files])


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=4))
def test_another_reader_finds_the_files_in_a_body(files: list[bytes]) -> None:
    # The reader of the standard library takes line ends for its own.
    files = [file.hex().encode("ascii") for file in files]
    head = f"Content-Type: {content_type('b0undary')}\r\n\r\n".encode("ascii")
    message = BytesParser().parsebytes(
        head + b"".join(body("b0undary", [[f] for f in files]))
    )
    parts = list(message.walk())[1:]
    assert [part.get_content_type() for part in parts] == ["application/dicom"] * len(
        files
    )
    assert [str(part.get_payload()).encode("ascii") for part in parts] == files


def item(uid: str, reason: str = "", value: object = 0) -> dict[str, object]:
    said: dict[str, object] = {
        "00081150": {"vr": "UI", "Value": ["1.2"]},
        "00081155": {"vr": "UI", "Value": [uid]},
    }
    if reason:
        said[reason] = {"vr": "US", "Value": [value]}
    return said


def an_answer(stored: list[object], failed: list[object]) -> dict[str, object]:
    return {
        "00081199": {"vr": "SQ", "Value": stored},
        "00081198": {"vr": "SQ", "Value": failed},
    }


def test_each_instance_has_an_end_of_its_own() -> None:
    answer = an_answer(
        [item("1.1"), item("1.2", "00081196", 0xB000), item("1.6")],
        [
            item("1.3", "00081197", 0xA700),
            item("1.4", "00081197", 0xC122),
            item("1.5", "00081197", 0xA900),
            item("1.6", "00081197", 0x0110),
            item("1.7"),
        ],
    )
    for said in (answer, [answer]):
        found = outcomes(json.dumps(said).encode())
        assert found == {
            "1.1": Outcome(Kind.STORED),
            "1.2": Outcome(Kind.STORED, 0xB000),
            "1.3": Outcome(Kind.BUSY, 0xA700),
            "1.4": Outcome(Kind.SYNTAX, 0xC122),
            "1.5": Outcome(Kind.REFUSED, 0xA900),
            "1.6": Outcome(Kind.BUSY, 0x0110),
            "1.7": Outcome(Kind.REFUSED),
        }
        assert found.get("1.8", UNSAID).kind is Kind.UNSAID


@pytest.mark.parametrize(
    "answer", [b"", b"<html>", b"[]", b"7", b"[{},{}]", b"[" * 99999]
)
def test_what_is_no_answer_says_nothing(answer: bytes) -> None:
    with pytest.raises(AnswerError):
        outcomes(answer)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inside: (
        st.lists(inside, max_size=3)
        | st.dictionaries(
            st.sampled_from(["00081199", "00081198", "00081155", "00081197", "Value"]),
            inside,
            max_size=3,
        )
    ),
)


@given(st.dictionaries(st.sampled_from(["00081199", "00081198"]), JSON))
def test_an_odd_answer_is_read_without_an_accident(said: dict[str, object]) -> None:
    assert isinstance(outcomes(json.dumps(said).encode()), dict)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (None, 0),
        ("120", 120),
        ("-3", 0),
        ("nan", 0),
        ("soon", 0),
        ("1e99", 86400),
        (format_datetime(NOON + timedelta(minutes=2), usegmt=True), 120),
        (format_datetime(NOON - timedelta(minutes=2), usegmt=True), 0),
        ("Thu, 01 Jan 2026 12:02:00", 0),
    ],
)
def test_how_long_a_server_wants_to_be_left_alone(
    value: str | None, wanted: float
) -> None:
    assert retry_after(value, NOON) == wanted
