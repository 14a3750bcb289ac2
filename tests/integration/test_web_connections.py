"""Connections of the page keep nobody out, and files that come by it touch no disk."""

from __future__ import annotations

import argparse
import socket
import tempfile
import time
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dicom_node import log, mapped
from dicom_node.commands import watch
from dicom_node.web import deadlines, serving
from dicom_node.web.deadlines import AT_ONCE, Deadlined
from tests.pages import Page, page, written

SOON_S = 10.0


def connected(made: Page) -> socket.socket:
    parts = urlsplit(made.origin)
    assert parts.hostname is not None
    return socket.create_connection((parts.hostname, parts.port or 0), SOON_S)


def is_hung_up_on(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1 << 16)
    except ConnectionError:
        return True


def test_who_only_connects_is_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Deadlined, "head_s", 1.0)
    with page(tmp_path) as made, ExitStack() as stack:
        idle = [stack.enter_context(connected(made)) for _ in range(AT_ONCE + 2)]
        assert all(map(is_hung_up_on, idle))
        assert made.browser().get("/login").status == 200


START = b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.mark.parametrize(
    "start", [START, START + b"Content-Length: 4096\r\n\r\n"], ids=["head", "body"]
)
def test_what_trickles_gets_no_more_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(Deadlined, "head_s", 1.0)
    monkeypatch.setattr(Deadlined, "body_s", 1.0)
    with page(tmp_path) as made, connected(made) as connection:
        connection.sendall(start)
        began = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() - began < SOON_S:
                connection.sendall(b"x")
                time.sleep(0.2)
        assert time.monotonic() - began < SOON_S


def test_of_one_address_only_so_many_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "is_loopback", lambda _: False)
    with page(tmp_path) as made, ExitStack() as stack:
        browser = made.browser()
        for _ in range(deadlines.OF_ONE):
            stack.enter_context(connected(made))
        time.sleep(0.5)
        with connected(made) as one_more:
            assert is_hung_up_on(one_more)
        stack.close()
        time.sleep(0.5)
        assert browser.get("/login").status == 200


def test_one_connection_serves_request_after_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Deadlined, "head_s", 1.0)
    with page(tmp_path) as made:
        parts = urlsplit(made.origin)
        with closing(HTTPConnection(parts.netloc, timeout=SOON_S)) as connection:
            connection.connect()
            socket_of_first = connection.sock
            for _ in range(3):
                connection.request("GET", "/static/x")
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 400
                assert connection.sock is socket_of_first
                time.sleep(1.5)  # the next request has not begun: no deadline is near


def test_a_file_to_be_explained_reaches_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laid: list[object] = []
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", laid.append)
    with page(tmp_path) as made:
        operator = made.known("otto")
        head = 'Content-Disposition: form-data; name="'
        body = (
            f'--xx\r\n{head}token"\r\n\r\n{operator.token()}\r\n'
            f'--xx\r\n{head}file"; filename="a"\r\n\r\n'.encode()
            + b"DOE^JANE" * (3 << 17)
            + b"\r\n--xx--\r\n"
        )
        kind = {"Content-Type": "multipart/form-data; boundary=xx"}
        assert operator.request("POST", "/routes/explain", body, **kind).status == 400
        assert not laid
        chunked = {**kind, "Transfer-Encoding": "chunked"}
        answer = operator.request("POST", "/routes/explain", body, **chunked)
        assert b"nobody says how much" in answer.data


@pytest.mark.parametrize("encrypts", [True, False])
def test_beside_a_sealed_spool_nothing_is_laid_in_the_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, encrypts: bool
) -> None:
    path = written(tmp_path)
    more = f'\n[storage]\nencrypt = {str(encrypts).lower()}\n[log]\nformat = "json"\n'
    path.write_text(path.read_text("utf-8") + more, "utf-8")
    (tmp_path / "state").mkdir(mode=0o700)
    held: list[bool] = []
    formats: list[log.Format] = []
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)
    monkeypatch.setattr(mapped, "hold_in_memory", lambda *, is_so: held.append(is_so))
    monkeypatch.setattr(log, "configure", formats.append)
    monkeypatch.setattr(watch, "_told_to_stop", lambda _: None)
    monkeypatch.setattr(serving, "serve_web", lambda *_: None)
    watch._web(argparse.Namespace(config=path, content=None, log_format=None))
    assert held == [encrypts]
    assert formats == [log.Format.JSON]
