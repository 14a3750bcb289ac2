"""Sending by STOW-RS, to a real server that answers as servers do."""

from __future__ import annotations

import shutil
import tracemalloc
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from dicom_node.destination import Destination, Kind
from dicom_node.errors import (
    BusyError,
    NotGrantedError,
    SendError,
    SendInterruptedError,
    SendRefusedError,
    UnaskedError,
    UnreachableError,
    UnsaidError,
)
from dicom_node.outgoing import Receiver
from dicom_node.stow import StowSending
from dicom_node.stow_item import Parcel
from dicom_node.syntaxes import Syntax
from dicom_node.web_connection import WebConnection
from tests.certificates import Authority
from tests.stow_server import Asked, Said, StowServer, a_stow_server, stored
from tests.studies import copies


@pytest.fixture(scope="module")
def files(images: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three small instances of one study."""
    return copies(images / "ct.dcm", tmp_path_factory.mktemp("files"), 3)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "ca")


@pytest.fixture
def server() -> Iterator[StowServer]:
    with a_stow_server() as running:
        yield running


def to(server: StowServer, **more: object) -> StowSending:
    values = {"name": "web", "kind": Kind.STOW, "url": server.url, "timeout_s": 5.0}
    return StowSending(Destination(**values | more))  # type: ignore[arg-type]


def anybody(_: Receiver) -> None:
    pass


def parcels(files: list[Path]) -> list[Parcel]:
    return [Parcel(file, anybody) for file in files]


def test_instances_go_together_and_byte_for_byte(
    server: StowServer, files: list[Path]
) -> None:
    with to(server) as sending:
        assert sending.send_all(parcels(files)) == [None] * 3
    (asked,) = server.asked
    assert list(asked.files) == [file.read_bytes() for file in files]
    assert asked.path == "/dicom-web/studies"
    assert asked.headers["Accept"] == "application/dicom+json"


def test_a_request_is_no_larger_than_wanted(
    server: StowServer, files: list[Path]
) -> None:
    size_mb = files[0].stat().st_size / (1 << 20)
    with to(server, request_mb=2.5 * size_mb) as sending:
        assert sending.send_all(parcels(files)) == [None] * 3
    assert server.posted() == [["1.2.3.0", "1.2.3.1"], ["1.2.3.2"]]


def test_each_instance_has_its_own_end(server: StowServer, files: list[Path]) -> None:
    failed = {"1.2.3.0": 0xA700, "1.2.3.1": 0xA900}
    server.answer = lambda asked: stored(asked, failed, 202)
    with to(server) as sending:
        busy, refused, good = sending.send_all(parcels(files))
    assert isinstance(busy, SendInterruptedError)
    assert isinstance(refused, SendRefusedError)
    assert "0xA900" in str(refused)
    assert good is None


def test_what_is_not_named_in_the_answer_is_not_sent(
    server: StowServer, files: list[Path]
) -> None:
    def forgetful(asked: Asked) -> Said:
        return stored(Asked(asked.method, asked.path, asked.headers, asked.files[:2]))

    server.answer = forgetful
    with to(server) as sending:
        *_, forgotten = sending.send_all(parcels(files))
    assert isinstance(forgotten, UnsaidError)
    server.answer = lambda _: Said(200, b"<html>stored, believe me</html>")
    with (
        to(server) as sending,
        pytest.raises(UnsaidError, match="did not say"),
    ):
        sending.send(files[0])


def test_one_that_is_at_fault_stops_no_other(
    server: StowServer, files: list[Path]
) -> None:
    def picky(asked: Asked) -> Said:
        return Said(409) if "1.2.3.1" in asked.instances else stored(asked)

    server.answer = picky
    with to(server) as sending:
        ends = sending.send_all(parcels(files))
    assert [type(end) for end in ends] == [type(None), SendRefusedError, type(None)]


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        (Said(400), SendRefusedError, "400"),
        (Said(409), SendRefusedError, "409"),
        (Said(413), SendRefusedError, "413"),
        (Said(413, before_body=True), SendRefusedError, "413"),
        (Said(401), SendInterruptedError, "401"),
        (Said(403), SendInterruptedError, "403"),
        (Said(404), SendInterruptedError, "404"),
        (Said(302, headers=(("Location", "/else"),)), SendInterruptedError, "302"),
        (Said(500), BusyError, "500"),
        (Said(503), BusyError, "503"),
    ],
    ids=lambda value: str(getattr(value, "status", "")),
)
def test_each_status_is_whose_fault_it_is(
    server: StowServer,
    files: list[Path],
    said: Said,
    error: type[Exception],
    words: str,
) -> None:
    server.answer = lambda _: said
    with to(server) as sending, pytest.raises(error, match=words):
        sending.send(files[0])
    assert [asked.method for asked in server.asked].count("POST") == 1
    # And the next one is sent as if nothing had been.
    server.answer = stored
    with to(server) as sending:
        sending.send(files[0])


@pytest.mark.parametrize(
    ("status", "may_have_it"),
    [
        *((status, True) for status in (200, 201, 202, 204, 303)),
        *((status, True) for status in (500, 502, 504, 520, 599)),
        *((status, False) for status in (302, 307, 308, 400, 401, 403, 404, 408, 409)),
        *((status, False) for status in (413, 415, 429, 501, 503, 505, 507, 511)),
    ],
)
def test_what_says_no_more_than_a_status_may_leave_open_whether_it_has_it(
    server: StowServer, files: list[Path], status: int, *, may_have_it: bool
) -> None:
    server.answer = lambda _: Said(status)
    with to(server) as sending, pytest.raises(SendError) as raised:
        sending.send(files[0])
    assert raised.value.may_have_it == may_have_it


@pytest.mark.parametrize("status", [401, 403, 404])
def test_one_that_a_server_does_not_allow_takes_down_neither_it_nor_others(
    server: StowServer, files: list[Path], status: int
) -> None:
    def answer(asked: Asked) -> Said:
        if asked.method == "OPTIONS":
            return Said(204)
        return Said(status) if "1.2.3.1" in asked.instances else stored(asked)

    server.answer = answer
    with to(server) as sending:
        ends = sending.send_all(parcels(files))
    assert [type(end) for end in ends] == [
        type(None),
        SendInterruptedError,  # no UnreachableError: it costs an attempt
        type(None),
    ]


def test_one_that_looks_at_no_token_first_says_nothing_of_it(
    server: StowServer, files: list[Path]
) -> None:
    server.answer = lambda asked: Said(405 if asked.method == "OPTIONS" else 401)
    with to(server) as sending, pytest.raises(UnreachableError, match="401"):
        sending.send(files[0])


@pytest.mark.parametrize(("at", "may_have_it"), [("open", False), ("ask", True)])
def test_whatever_goes_wrong_is_the_end_of_each_and_of_nothing_else(
    server: StowServer,
    files: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    at: str,
    *,
    may_have_it: bool,
) -> None:
    def fails(*_: object) -> str:
        raise UnicodeError("label empty or too long")

    monkeypatch.setattr(WebConnection, at, fails)
    with to(server) as sending:
        ends = sending.send_all(parcels(files))
    assert [type(end) for end in ends] == [SendInterruptedError] * 3
    assert {getattr(end, "may_have_it", None) for end in ends} == {may_have_it}


def test_a_copy_that_waits_for_long_is_sent_though_it_was_swept(
    server: StowServer, files: list[Path], tmp_path: Path
) -> None:
    copied = [Path(shutil.copy(file, tmp_path)) for file in files]
    parts: list[Path] = []

    def sweep(_: Receiver) -> None:
        for part in tmp_path.glob("*.part"):
            parts.append(part)
            part.unlink()

    forms = (Syntax.RLE,)
    with to(server, transfer_syntaxes=forms) as sending:
        ends = sending.send_all([Parcel(file, sweep) for file in copied])
    assert len(parts) == 3
    assert ends == [None] * 3


def test_a_server_that_is_busy_says_for_how_long(
    server: StowServer, files: list[Path]
) -> None:
    server.answer = lambda _: Said(429, headers=(("Retry-After", "120"),))
    with to(server) as sending:
        ends = sending.send_all(parcels(files))
    assert [getattr(end, "wait_s", None) for end in ends] == [120.0] * 3
    assert len(server.asked) == 1


def test_the_next_form_is_taken_where_one_is_not(
    server: StowServer, files: list[Path]
) -> None:
    def old(asked: Asked) -> Said:
        taken = b"1.2.840.10008.1.2\0"  # implicit
        failed = {
            uid: 0xC122
            for uid, file in zip(asked.instances, asked.files, strict=True)
            if taken not in file[:600]
        }
        return stored(asked, failed, 409 if failed else 200)

    server.answer = old
    with to(server) as sending:
        assert sending.send_all(parcels(files)) == [None] * 3
        count = len(server.asked)
        assert sending.send_all(parcels(files)) == [None] * 3
    # What it does not take is not offered to it again.
    assert len(server.asked) == count + 1
    assert b"1.2.840.10008.1.2\0" in server.asked[-1].files[0][:600]
    assert not list(files[0].parent.glob("*.part"))


def test_what_is_taken_in_no_form_is_refused(
    server: StowServer, files: list[Path]
) -> None:
    server.answer = lambda _: Said(415)
    one = to(server, transfer_syntaxes=(Syntax.AS_IS, Syntax.IMPLICIT))
    with one as sending:
        for error in (SendRefusedError, UnaskedError):
            with pytest.raises(error, match="takes no CT Image") as raised:
                sending.send(files[0])
            assert raised.type is error
            # What it has said once is known the next time.
            assert len(server.asked) == 2


def test_the_token_is_read_again_for_each_request(
    server: StowServer, files: list[Path], tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("old\n", "ascii")

    def guarded(asked: Asked) -> Said:
        is_known = asked.headers["Authorization"] == "Bearer new"
        return stored(asked) if is_known else Said(401)

    server.answer = guarded
    with to(server, token_file=token) as sending:
        with pytest.raises(SendInterruptedError, match="401"):
            sending.send(files[0])
        with pytest.raises(SendInterruptedError, match="401"):
            sending.probe()
        token.write_text("new\n", "ascii")
        sending.send(files[0])
        sending.probe()
        token.write_text("two words\n", "ascii")
        with pytest.raises(SendInterruptedError, match="holds no token"):
            sending.send(files[0])
    assert all("old" not in str(one.path) for one in server.asked)


def test_who_answers_is_known_before_anything_is_sent(
    authority: Authority, files: list[Path]
) -> None:
    credential = authority.certify("server")

    def nobody(receiver: Receiver) -> None:
        seen.append(receiver)
        raise NotGrantedError("no grant")

    seen: list[Receiver] = []
    with (
        a_stow_server(credential) as server,
        to(server, ca=authority.own.file, ae_title="WEB") as sending,
    ):
        both = [Parcel(files[0], nobody), Parcel(files[1], anybody)]
        refused, good = sending.send_all(both)
        assert isinstance(refused, NotGrantedError)
        assert good is None
        assert sending.receiver("", "") == seen[0]
    assert seen == [
        Receiver(
            ae_title="WEB",
            address=f"127.0.0.1:{server.port}",
            fingerprint=credential.fingerprint,
        )
    ]
    assert server.posted() == [["1.2.3.1"]]


def test_another_server_gets_nothing(
    authority: Authority, files: list[Path], tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other")
    for credential in (
        other.certify("server"),
        authority.certify("named", names=()),
        authority.certify("late", until=-timedelta(hours=1)),
    ):
        with a_stow_server(credential) as server:
            sending = to(server, ca=authority.own.file)
            with (
                sending,
                pytest.raises(SendInterruptedError, match="cannot be reached"),
            ):
                sending.send(files[0])
            assert server.asked == []


def test_a_certificate_of_our_own_is_shown(
    authority: Authority, files: list[Path]
) -> None:
    mine = authority.certify("gateway")
    shown = {"certificate": mine.file, "key": mine.key_file, "ca": authority.own.file}
    with a_stow_server(authority.certify("server"), authority.own.file) as server:
        with to(server, **shown) as sending:
            sending.send(files[0])
        unknown = to(server, ca=authority.own.file)
        with unknown, pytest.raises(SendInterruptedError):
            unknown.send(files[0])
    assert len(server.asked) == 1


def test_nobody_there_and_a_server_that_comes_back(files: list[Path]) -> None:
    with a_stow_server() as server:
        sending = to(server)
        sending.send(files[0])
    sending.close()
    with sending, pytest.raises(SendInterruptedError, match="cannot be reached"):
        sending.send(files[0])


def test_a_large_object_is_not_held_in_memory(
    server: StowServer, tmp_path: Path, files: list[Path]
) -> None:
    size = 256 << 20
    file = tmp_path / "large.dcm"
    file.write_bytes(files[0].read_bytes())
    with file.open("r+b") as stream:
        stream.truncate(
            size
        )  # nothing but zeros after its end, and none of them on disk
    server.keeps = False
    server.answer = lambda _: Said(500)
    tracemalloc.start()
    try:
        with to(server) as sending, pytest.raises(BusyError):
            sending.send(file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert server.read > size
    assert peak < size / 16
