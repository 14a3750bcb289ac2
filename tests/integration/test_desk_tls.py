"""A release desk against bad certificates, bad peers and bad luck."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest
import urllib3

from dicom_node.asking import MAX_BYTES, PATH
from dicom_node.config import ReleaseDesk
from dicom_node.desk import Desk
from dicom_node.errors import ConfigError, KeyServiceError
from dicom_node.web.desk import MAX_CONNECTIONS, serve_desk
from tests.certificates import DAY, Authority, Credential
from tests.desks import PAYLOAD, RECEIVER, World, a_world, asking, serving


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as made:
        yield made


def port_of(world: World) -> int:
    return int(world.address.rpartition(":")[2])


def assert_let_out(world: World, credential: Credential) -> None:
    """TLS itself refuses: no request is ever read."""
    with pytest.raises(KeyServiceError):
        world.open(world.site.mark(), world.client(credential, sleep=lambda _: None))
    assert world.site.audit.head().number == 0


def test_a_certificate_of_another_authority_is_refused(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "authority")
    assert_let_out(world, other.certify("archive"))


def test_a_certificate_that_has_ended_is_refused(world: World) -> None:
    assert_let_out(world, world.authority.certify("old", until=-DAY / 2))


def test_whoever_shows_no_certificate_is_refused(world: World) -> None:
    record = world.site.mark()
    with (
        urllib3.PoolManager(
            ca_certs=str(world.authority.own.file), retries=False
        ) as pool,
        pytest.raises((urllib3.exceptions.SSLError, urllib3.exceptions.ProtocolError)),
    ):
        pool.request("POST", world.address + PATH, body=asking(record).to_bytes())
    assert world.site.audit.head().number == 0


def test_without_tls_nothing_is_said(world: World) -> None:
    with socket.create_connection(("127.0.0.1", port_of(world)), timeout=10) as plain:
        plain.sendall(b"POST /v1/release HTTP/1.1\r\nHost: x\r\n\r\n")
        answered = b""
        try:
            while part := plain.recv(1000):
                answered += part
        except ConnectionError:
            pass
    assert b"HTTP" not in answered


def test_versions_before_tls_1_2_are_refused(world: World) -> None:
    context = ssl.create_default_context(cafile=world.authority.own.file)
    context.load_cert_chain(world.archive.file, world.archive.key_file)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        socket.create_connection(("127.0.0.1", port_of(world)), timeout=10) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_a_revoked_certificate_is_refused_as_soon_as_the_list_says_so(
    world: World,
) -> None:
    crl = world.authority.crl()
    with serving(world.site, world.desk, world.authority, crl=crl) as world.address:
        client = world.client()
        assert world.open(world.site.mark(), client) == PAYLOAD
        world.authority.revoked.append(world.archive.certificate.serial_number)
        world.authority.crl()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                world.open(world.site.mark(), client)
            except KeyServiceError:
                break
            time.sleep(0.05)
        else:
            pytest.fail("it is still let in")
        other = world.authority.certify("other")
        world.site.grant(other.fingerprint, RECEIVER)
        assert world.open(world.site.mark(), world.client(other)) == PAYLOAD


def test_a_certificate_file_that_is_broken_changes_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.desk.file.write_text("half of a file")
    deadline = time.monotonic() + 10
    while "going on" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "going on with what was read before" in caplog.text
    assert world.open(world.site.mark()) == PAYLOAD


@pytest.mark.parametrize("broken", ["certificate", "key", "client_ca", "crl", "port"])
def test_a_desk_that_cannot_work_says_so_at_once(world: World, broken: str) -> None:
    values: dict[str, object] = {
        "certificate": world.desk.file,
        "key": world.desk.key_file,
        "client_ca": world.authority.own.file,
        "crl": world.authority.crl(),
        "port": 0,
    }
    values[broken] = port_of(world) if broken == "port" else Path("/nowhere")
    with pytest.raises(ConfigError, match="release: "):
        serve_desk(
            world.site.desk(),
            ReleaseDesk(**values),  # type: ignore[arg-type]
            ready=lambda _: pytest.fail("it is ready"),
            stopping=lambda: True,
        )


def test_silent_peers_keep_nobody_waiting(world: World) -> None:
    with ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(socket.create_connection(("127.0.0.1", port_of(world))))
        begun = time.monotonic()
        assert world.open(world.site.mark()) == PAYLOAD
        assert time.monotonic() - begun < 5


def a_connection(world: World, credential: Credential) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=world.authority.own.file)
    context.load_cert_chain(credential.file, credential.key_file)
    plain = socket.create_connection(("127.0.0.1", port_of(world)), timeout=5)
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_one_certificate_has_so_many_connections_and_leaves_the_rest_to_others(
    world: World,
) -> None:
    greedy = world.authority.certify("greedy")
    with ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS):
            stack.enter_context(a_connection(world, greedy))
        more = stack.enter_context(a_connection(world, greedy))
        assert more.recv(1) == b""
        assert world.open(world.site.mark()) == PAYLOAD


HEAD = b"POST /v1/release HTTP/1.1\r\nHost: desk\r\n"


def received(connection: ssl.SSLSocket) -> bytes:
    """Everything that comes until the other end closes."""
    parts = []
    while part := connection.recv(1000):
        parts.append(part)
    return b"".join(parts)


def test_neither_handshake_nor_headers_nor_body_are_waited_for_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.web.desk.HANDSHAKE_S", 0.3)
    monkeypatch.setattr("dicom_node.web.desk.READ_S", 0.3)
    with serving(world.site, world.desk, world.authority) as world.address:
        with socket.create_connection(("127.0.0.1", port_of(world)), 5) as silent:
            assert silent.recv(1) == b""
        with a_connection(world, world.archive) as late:
            late.sendall(HEAD + b"Content-Length: 9\r\n\r\n{")
            assert received(late).startswith(b"HTTP/1.1 400 ")
        with a_connection(world, world.archive) as late:
            late.sendall(b"POST /v1/release HTT")
            assert received(late) == b""


def test_what_is_too_much_is_not_read_to_its_end(world: World) -> None:
    with a_connection(world, world.archive) as endless:
        length = b"Content-Length: 1000000000\r\n\r\n"
        endless.sendall(HEAD + length + bytes(MAX_BYTES + 1))
        assert endless.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_what_nobody_expected_is_no_answer_and_stops_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = world.site.mark()

    def fails(*_: object) -> NoReturn:
        raise KeyError("nobody expected this")

    with monkeypatch.context() as patch:
        patch.setattr(Desk, "answer", fails)
        answered = world.post(asking(record).to_bytes())
    assert answered == (503, b'{"error": "the desk cannot answer now"}')
    assert world.open(record) == PAYLOAD


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"\x00\xff" * 100 + b"\r\n\r\n", id="no HTTP"),
        pytest.param(HEAD + b"secret words\r\n\r\n", id="header"),
        pytest.param(
            HEAD + b"Transfer-Encoding: chunked\r\n\r\nsecret\r\n", id="chunk"
        ),
    ],
)
def test_what_is_no_http_is_not_written_down(
    world: World, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    with a_connection(world, world.archive) as connection:
        connection.sendall(sent)
        assert b" 400 " in received(connection)[:13]
    assert "secret" not in caplog.text
    assert world.open(world.site.mark()) == PAYLOAD
