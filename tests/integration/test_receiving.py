"""What is taken in from real peers, and what bad ones cannot do to the others."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dicom_node.certificates import ServerTls
from dicom_node.config import Config, Listener
from dicom_node.demo.loopback import await_that
from dicom_node.destination import Destination
from dicom_node.errors import SendInterruptedError, UnreachableError
from dicom_node.incoming import IncomingFile
from dicom_node.listening import Guarding, Listening, Peer
from dicom_node.pdu import MAX_PDU
from dicom_node.rejections import Rejected
from dicom_node.scu import Sending
from tests.callers import (
    ABORTED,
    ACCEPTED,
    CALLED,
    CT_IMAGE_STORAGE,
    ECHO,
    IMPLICIT,
    LOOPBACK,
    REJECTED,
    RELEASE,
    Receiver,
    a_config,
    answer,
    associate,
    command,
    connected,
    data,
    element,
    pdu,
    receiving,
    secured,
    store_command,
    uid,
    us,
)
from tests.certificates import Authority, Credential

LIMIT_EXCEEDED = (2, 3, 2)
DATASET = struct.pack("<HHL", 8, 0x16, 26) + uid(CT_IMAGE_STORAGE)


def an_association(port: int, request: bytes, host: str = LOOPBACK) -> socket.socket:
    connection = connected(port, host=host)
    connection.sendall(request)
    return connection


def status(connection: socket.socket) -> int:
    """The status in the next response."""
    kind, content = answer(connection)
    assert kind == 0x04
    at = content.index(struct.pack("<HHL", 0, 0x0900, 2)) + 8
    return int.from_bytes(content[at : at + 2], "little")


def assert_it_answers(port: int, title: str = "CT1") -> None:
    with an_association(port, associate(title)) as connection:
        assert answer(connection)[0] == ACCEPTED
        connection.sendall(ECHO)
        assert status(connection) == 0
        connection.sendall(RELEASE)
        assert answer(connection)[0] == 0x06


@pytest.mark.peers
@pytest.mark.usefixtures("peers")
class TestPeers:
    """DCMTK as sender."""

    def sent(self, images: Path, port: int, *more: object) -> str:
        done = subprocess.run(
            [
                *("storescu", "-v", "-R", "-aet", "CT1", "-aec", CALLED),
                *map(str, more),
                *(LOOPBACK, str(port)),
                *map(str, sorted(images.glob("*.dcm"))),
            ],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"TCP_NODELAY": "1"},
        )
        return done.stdout + done.stderr

    @pytest.mark.parametrize("pdu_size", [4096, 131072])
    def test_dcmtk_sends(self, images: Path, tmp_path: Path, pdu_size: int) -> None:
        with receiving(a_config(), tmp_path) as receiver:
            said = self.sent(images, receiver.port, "--max-send-pdu", pdu_size)
        assert said.count("(Success)") == len(list(images.glob("*.dcm")))
        assert len(receiver.received) == said.count("(Success)")

    def test_dcmtk_sends_over_tls(self, images: Path, tmp_path: Path) -> None:
        authority = Authority(tmp_path, "authority")
        own = authority.certify("ct1")
        with receiving(guarded(authority, own), tmp_path) as receiver:
            said = self.sent(
                images,
                receiver.port,
                *("--enable-tls", own.key_file, own.file),
                *("--add-cert-file", authority.own.file),
            )
        assert said.count("(Success)") == len(list(images.glob("*.dcm")))
        assert len(receiver.received) == said.count("(Success)")

    def test_dcmtk_is_refused_with_the_certificate_of_another(
        self, images: Path, tmp_path: Path
    ) -> None:
        authority = Authority(tmp_path, "authority")
        other = authority.certify("other")
        config = guarded(authority, authority.certify("ct1"))
        with receiving(config, tmp_path) as receiver:
            said = self.sent(
                images,
                receiver.port,
                *("--enable-tls", other.key_file, other.file),
                *("--add-cert-file", authority.own.file),
            )
        assert "Calling AE Title Not Recognized" in said
        assert not receiver.received


def test_a_node_sends_to_who_wants_to_see_a_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    ct1 = authority.certify("ct1")
    with receiving(guarded(authority, ct1), tmp_path) as receiver:
        shown = Destination(
            name="gateway",
            ae_title=CALLED,
            host="127.0.0.1",
            port=receiver.port,
            tls_ca=authority.own.file,
            certificate=ct1.file,
            key=ct1.key_file,
        )
        Sending(shown, "CT1").probe()
        with pytest.raises(UnreachableError):
            Sending(replace(shown, certificate=None, key=None), "CT1").probe()
        with pytest.raises(SendInterruptedError, match="cannot be used"):
            Sending(replace(shown, key=ct1.file), "CT1").probe()


def guarded(authority: Authority, ct1: Credential, crl: Path | None = None) -> Config:
    gateway = authority.certify("gateway")
    listening = Listening(
        port=0,
        certificate=gateway.file,
        key=gateway.key_file,
        client_ca=authority.own.file,
        crl=crl,
    )
    peer = Peer(ae_title="CT1", fingerprints=(ct1.fingerprint,))
    return a_config(listening=listening, peers=(peer,))


PRIVATE, UNHEARD_OF = "1.3.46.670589.5.0.1", "1.2.840.10008.5.1.4.1.1.999"


@pytest.mark.parametrize("sop_class", [PRIVATE, UNHEARD_OF, CT_IMAGE_STORAGE])
def test_objects_of_any_class_are_taken_in(tmp_path: Path, sop_class: str) -> None:
    with (
        receiving(a_config(), tmp_path) as receiver,
        an_association(
            receiver.port, associate(classes=("1.2.840.10008.1.1", sop_class))
        ) as connection,
    ):
        kind, content = answer(connection)
        assert kind == ACCEPTED
        assert bytes([0x21, 0, 0, 25, 3, 0, 0]) in content  # context 3: accepted
        connection.sendall(
            store_command(sop_class) + data(DATASET, context=3, control=2)
        )
        assert status(connection) == 0
    assert receiver.received == [("CT1", sop_class)]
    assert not receiver.files()


@pytest.mark.parametrize(
    ("sop_class", "syntax"),
    [
        pytest.param("1.2.840.10008.1.20.1", IMPLICIT, id="commitment"),
        pytest.param("1.2.840.10008.5.1.4.1.2.2.1", IMPLICIT, id="query"),
        pytest.param(
            CT_IMAGE_STORAGE, "1.2.840.10008.1.2.1.99", id="deflated, grows unseen"
        ),
        pytest.param(PRIVATE, "1.3.46.670589.33.1.4.1", id="a private syntax"),
    ],
)
def test_what_is_no_storage_or_no_known_syntax_is_not_offered(
    tmp_path: Path, sop_class: str, syntax: str
) -> None:
    request = associate(classes=("1.2.840.10008.1.1", sop_class), syntaxes=(syntax,))
    with (
        receiving(a_config(), tmp_path) as receiver,
        an_association(receiver.port, request) as connection,
    ):
        kind, content = answer(connection)
        assert kind == ACCEPTED
        result = content[content.index(b"\x21\x00", 70) :]
        second = result[4 + int.from_bytes(result[2:4], "big") :]
        assert (second[4], second[6]) in {(3, 3), (3, 4)}


def test_an_echo_is_not_offered_deflated(bystander: Receiver) -> None:
    request = associate(syntaxes=("1.2.840.10008.1.2.1.99",))
    with an_association(bystander.port, request) as connection:
        kind, content = answer(connection)
        assert kind == ACCEPTED
        first = content[content.index(b"\x21\x00", 70) :]
        assert (first[4], first[6]) == (1, 4)


def test_an_instance_is_taken_in_its_own_context_only(bystander: Receiver) -> None:
    before = list(bystander.received)
    in_echoes = (store_command() + WHOLE).replace(b"\x03\x03", b"\x01\x03", 1)
    in_echoes = in_echoes.replace(b"\x03\x02\x08", b"\x01\x02\x08", 1)
    with an_association(bystander.port, associate()) as connection:
        assert answer(connection)[0] == ACCEPTED
        connection.sendall(in_echoes)
        assert status(connection) == 0x0122
    assert bystander.received == before
    await_that(lambda: not bystander.files(), "the file to be deleted")


@pytest.mark.parametrize("length", [MAX_PDU + 1, 400 << 20, 0xFFFFFFFF])
def test_a_pdu_that_announces_too_much_is_not_read(tmp_path: Path, length: int) -> None:
    with receiving(a_config(), tmp_path) as receiver:
        with an_association(receiver.port, associate()) as connection:
            assert answer(connection)[0] == ACCEPTED
            connection.sendall(pdu(0x04, b"", length=length))
            assert answer(connection)[0] == ABORTED
            assert answer(connection)[0] == 0
        assert_it_answers(receiver.port)


WHOLE = data(DATASET, context=3, control=2)
NUMBERLESS = data(
    command(
        element(0x0002, uid(CT_IMAGE_STORAGE)),
        element(0x0100, us(0x0001)),
        element(0x0700, us(0)),
        element(0x0800, us(0)),
        element(0x1000, uid("1.2.3")),
    ),
    context=3,
)
"""A C-STORE without a Message ID: nobody answers it."""


def in_one_pdu(*pdus: bytes) -> bytes:
    return pdu(0x04, b"".join(one[6:] for one in pdus))


MALFORMED: dict[str, bytes] = {
    "a PDU of no type": pdu(0x99, bytes(10)),
    "a PDU that is empty": pdu(0x04, b""),
    "a value longer than its PDU": pdu(0x04, struct.pack(">L", 1000) + b"\x01\x03abc"),
    "a value of no length": pdu(0x04, struct.pack(">L", 0)),
    "a value with no control header": pdu(0x04, struct.pack(">L", 1) + b"\x01"),
    "half of a command": data(ECHO[12:30]),
    "a command of noise": data(bytes(range(256))),
    "a command without a field": data(command(element(0x0002, uid("1.2.3")))),
    "a command of no kind": data(command(element(0x0100, us(0x7777)))),
    "an echo in a context that was never asked for": ECHO.replace(
        b"\x01\x03", b"\x63\x03", 1
    ),
    "a store without names": data(
        command(element(0x0100, us(1)), element(0x0800, us(0))), context=3
    )
    + data(DATASET, context=3, control=2),
    "a name with a line's end": store_command(instance="1.2\n3")
    + data(DATASET, context=3, control=2),
    "a name that is a path": store_command(instance="../../x")
    + data(DATASET, context=3, control=2),
    "data that nothing announces": data(DATASET, context=3, control=2) * 50,
    "a store without a number": NUMBERLESS + WHOLE,
    "many stores without a number": (NUMBERLESS + WHOLE) * 30,
    "a store that is no store": data(
        command(
            element(0x0002, uid("1.2.840.10008.1.1")),
            element(0x0100, us(0x0001)),
            element(0x0110, us(1)),
            element(0x0700, us(0)),
            element(0x0800, us(0)),
            element(0x1000, uid("1.2.3")),
        ),
        context=3,
    )
    + WHOLE,
    "two commands and one data set": store_command() * 2 + WHOLE,
    "many commands and no data set": store_command() * 30,
    "many commands in one PDU": in_one_pdu(*[store_command()] * 30),
    "many stores in one PDU": in_one_pdu(*[store_command(), WHOLE] * 30),
    "stores that nobody waits for, and an abort": (store_command() + WHOLE) * 6
    + pdu(0x07, bytes(4)),
    "a response to nothing": data(
        command(element(0x0100, us(0x8030)), element(0x0120, us(1)))
        + element(0x0900, us(0))
    ),
    "another request for an association": associate(),
    "a release's answer": pdu(0x06, bytes(4)),
    "an event report": data(
        command(
            element(0x0002, uid("1.2.840.10008.1.20.1")),
            element(0x0100, us(0x0100)),
            element(0x0110, us(1)),
            element(0x0800, us(0x0101)),
            element(0x1000, uid("1.2.3")),
            element(0x1002, us(1)),
        )
    ),
}


def open_in(folder: Path) -> list[str]:
    """The files in a folder that this process has open, deleted or not."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.append(str(descriptor.readlink()))
    return [name for name in found if name.startswith(str(folder))]


@pytest.fixture(scope="module")
def bystander(tmp_path_factory: pytest.TempPathFactory) -> object:
    with receiving(a_config(), tmp_path_factory.mktemp("bystander")) as receiver:
        yield receiver


@pytest.mark.parametrize("case", MALFORMED)
def test_nonsense_ends_its_own_association_and_no_other(
    bystander: Receiver, case: str
) -> None:
    with an_association(bystander.port, associate("CT2")) as other:
        assert answer(other)[0] == ACCEPTED
        with an_association(bystander.port, associate()) as connection:
            assert answer(connection)[0] == ACCEPTED
            connection.sendall(MALFORMED[case] + RELEASE)
            with suppress(ConnectionError):
                while connection.recv(4096):
                    pass
        other.sendall(ECHO)
        assert status(other) == 0
    assert_it_answers(bystander.port)
    await_that(lambda: not bystander.files(), "files to be deleted")
    await_that(lambda: not open_in(bystander.incoming), "files to be closed")


@pytest.mark.parametrize("pieces", [[store_command()] * 3, [NUMBERLESS, WHOLE] * 30])
def test_files_do_not_pile_up_while_it_lasts(
    bystander: Receiver, pieces: list[bytes]
) -> None:
    with an_association(bystander.port, associate()) as connection:
        assert answer(connection)[0] == ACCEPTED
        connection.sendall(b"".join(pieces))
        assert answer(connection)[0] == ABORTED
    await_that(lambda: not open_in(bystander.incoming), "files to be closed")


def test_chance_finds_nothing_that_stops_it(bystander: Receiver) -> None:
    chance = np.random.default_rng(7)
    whole = ECHO + store_command() + data(DATASET, context=3, control=2) + RELEASE
    for _ in range(60):
        broken = bytearray(whole)
        for at in chance.integers(0, len(broken), chance.integers(1, 6)):
            broken[at] = chance.integers(256)
        with an_association(bystander.port, associate()) as connection:
            assert answer(connection)[0] == ACCEPTED
            connection.sendall(broken[: chance.integers(1, len(broken) + 1)])
            connection.shutdown(socket.SHUT_WR)
            with suppress(ConnectionError):
                while connection.recv(4096):
                    pass
    assert_it_answers(bystander.port)
    await_that(lambda: not bystander.files(), "files to be deleted")
    await_that(lambda: not open_in(bystander.incoming), "files to be closed")


@pytest.mark.parametrize(
    "slow",
    [
        pytest.param(lambda c: c.sendall(b"\x04"), id="a header"),
        pytest.param(lambda c: c.sendall(ECHO[:-1]), id="a PDU"),
        pytest.param(lambda _: None, id="an association"),
    ],
)
def test_nothing_is_waited_for_long(
    tmp_path: Path, slow: Callable[[socket.socket], None]
) -> None:
    config = a_config(
        guard=Guarding(pdu_s=0.5), node=Listener(ae_title=CALLED, timeout_s=1)
    )
    with (
        receiving(config, tmp_path) as receiver,
        an_association(receiver.port, associate()) as connection,
    ):
        assert answer(connection)[0] == ACCEPTED
        slow(connection)
        assert answer(connection)[0] in {0, ABORTED}


def test_taking_an_object_over_is_no_idleness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = a_config(node=Listener(ae_title=CALLED, timeout_s=1))
    finish = IncomingFile.finish

    def finish_slowly(self: IncomingFile) -> None:
        time.sleep(1.5)
        finish(self)

    monkeypatch.setattr(IncomingFile, "finish", finish_slowly)
    with (
        receiving(config, tmp_path) as receiver,
        an_association(receiver.port, associate()) as connection,
    ):
        assert answer(connection)[0] == ACCEPTED
        for _ in range(2):
            connection.sendall(store_command() + WHOLE)
            assert status(connection) == 0
            time.sleep(0.3)


def test_an_answer_is_no_longer_than_the_peer_takes(bystander: Receiver) -> None:
    request = associate().replace(struct.pack(">L", 131072), struct.pack(">L", 64))
    with an_association(bystander.port, request) as connection:
        assert answer(connection)[0] == ACCEPTED
        connection.sendall(store_command() + WHOLE)
        kind, piece = answer(connection)
        assert kind == 0x04
        assert len(piece) <= 64


def test_whoever_comes_while_it_stops_hears_so(bystander: Receiver) -> None:
    (server,) = bystander.scp._servers
    server.open_associations._is_ending = True
    try:
        with an_association(bystander.port, associate()) as connection:
            kind, reason = answer(connection)
    finally:
        server.open_associations._is_ending = False
    assert (kind, tuple(reason[1:])) == (REJECTED, (2, 3, 1))


def test_the_oldest_of_those_who_wait_makes_room(tmp_path: Path) -> None:
    config = a_config(guard=Guarding(max_waiting=2))
    with receiving(config, tmp_path) as receiver, ExitStack() as stack:
        waiting = []
        for number in range(4):
            waiting.append(stack.enter_context(connected(receiver.port)))
            if number >= 2:
                assert answer(waiting[number - 2])[0] in {0, ABORTED}
        for connection in waiting[2:]:
            connection.sendall(associate())
            assert answer(connection)[0] == ACCEPTED


def test_a_message_that_drips_is_cut_off_however_small_its_pdus(tmp_path: Path) -> None:
    config = a_config(node=Listener(ae_title=CALLED, timeout_s=1))
    with (
        receiving(config, tmp_path) as receiver,
        an_association(receiver.port, associate()) as connection,
    ):
        assert answer(connection)[0] == ACCEPTED
        connection.sendall(store_command())
        connection.settimeout(0.2)
        end = time.monotonic() + 30
        kind = -1
        while kind == -1 and time.monotonic() < end:
            connection.sendall(data(b"\0\0", context=3, control=0))
            with suppress(TimeoutError):
                kind = answer(connection)[0]
        assert kind in {0, ABORTED}
        await_that(lambda: not receiver.files(), "the part to be deleted")


def test_an_object_may_be_so_large_and_no_larger(tmp_path: Path) -> None:
    config = a_config(guard=Guarding(max_object_mb=1))
    with (
        receiving(config, tmp_path) as receiver,
        an_association(receiver.port, associate()) as connection,
    ):
        assert answer(connection)[0] == ACCEPTED
        connection.sendall(store_command())
        with suppress(ConnectionError):
            for _ in range(12):
                connection.sendall(data(bytes(100_000), context=3, control=0))
        assert answer(connection)[0] in {0, ABORTED}
        await_that(lambda: not receiver.files(), "the part to be deleted")
        assert not receiver.received


@pytest.mark.parametrize(
    ("guard", "node", "hosts", "titles"),
    [
        pytest.param(Guarding(max_per_address=2), None, 1, 3, id="address"),
        pytest.param(Guarding(max_per_title=2), None, 3, 1, id="title"),
        pytest.param(
            None,
            Listener(ae_title=CALLED, max_associations=2, timeout_s=10),
            3,
            3,
            id="all",
        ),
    ],
)
def test_whoever_is_one_too_many_hears_so(
    tmp_path: Path,
    guard: Guarding | None,
    node: Listener | None,
    hosts: int,
    titles: int,
) -> None:
    with (
        receiving(a_config(guard=guard, node=node), tmp_path) as receiver,
        ExitStack() as stack,
    ):
        heard = []
        for number in range(3):
            request = associate(f"CT{number % titles}")
            host = f"127.0.0.{1 + number % hosts}"
            connection = an_association(receiver.port, request, host)
            heard.append(answer(stack.enter_context(connection)))
        assert [kind for kind, _ in heard] == [ACCEPTED, ACCEPTED, REJECTED]
        assert tuple(heard[2][1][1:]) == LIMIT_EXCEEDED
        stack.close()

        def is_free() -> bool:
            with an_association(receiver.port, associate("CT0")) as connection:
                return answer(connection)[0] == ACCEPTED

        await_that(is_free, "a place")


def test_a_peer_may_have_a_limit_of_its_own(tmp_path: Path) -> None:
    peers = (Peer(ae_title="CT1", max_associations=1),)
    with (
        receiving(a_config(peers=peers), tmp_path) as receiver,
        an_association(receiver.port, associate()) as first,
    ):
        assert answer(first)[0] == ACCEPTED
        with an_association(receiver.port, associate()) as second:
            assert answer(second)[0] == REJECTED
        with an_association(receiver.port, associate("CT2")) as other:
            assert answer(other)[0] == ACCEPTED


def test_it_listens_on_ipv6_as_well(tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("left out: there is no IPv6 here")
    peers = (Peer(ae_title="CT1", addresses=("::1",)),)
    config = a_config(listening=Listening(bind="::1", port=0), peers=peers)
    with (
        receiving(config, tmp_path) as receiver,
        socket.create_connection(("::1", receiver.port), 10) as connection,
    ):
        connection.sendall(associate())
        assert answer(connection)[0] == ACCEPTED


def test_one_port_has_several_titles(tmp_path: Path) -> None:
    node = Listener(ae_title=CALLED, called_ae_titles=("OTHER",))
    with receiving(a_config(node=node), tmp_path) as receiver:
        for called, kind in (("OTHER", ACCEPTED), ("NOBODY", REJECTED)):
            with an_association(receiver.port, associate("CT1", called)) as one:
                assert answer(one)[0] == kind


class TestCertificatesThatChange:
    def let_in(self, receiver: Receiver, ca: Path, own: Credential) -> bool:
        try:
            with secured(receiver.port, ca, own) as connection:
                connection.sendall(associate())
                return answer(connection)[0] == ACCEPTED
        except (ssl.SSLError, ConnectionError):
            return False

    def test_a_list_of_revoked_ones_counts_at_once(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path, "authority")
        own = authority.certify("ct1")
        config = guarded(authority, own, authority.crl())
        with receiving(config, tmp_path) as receiver:
            assert self.let_in(receiver, authority.own.file, own)
            authority.revoked.append(own.certificate.serial_number)
            authority.crl()
            receiver.scp.renew()
            assert not self.let_in(receiver, authority.own.file, own)

    def test_a_broken_file_changes_nothing_and_is_said(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        authority = Authority(tmp_path, "authority")
        own = authority.certify("ct1")
        with receiving(guarded(authority, own), tmp_path) as receiver:
            ca = tmp_path / "ca.pem"
            ca.write_bytes(authority.own.file.read_bytes())
            authority.own.file.write_text("half a file")
            receiver.scp.renew()
            assert "going on with what was read before" in caplog.text
            assert self.let_in(receiver, ca, own)
            authority.own.file.write_bytes(ca.read_bytes())
            receiver.scp.renew()
            assert self.let_in(receiver, ca, own)

    def test_what_cannot_be_read_at_first_is_read_later(
        self,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The disk had a fault, and the file is the same before it and after."""
        authority = Authority(tmp_path, "authority")
        own = authority.certify("ct1")
        config = guarded(authority, own, authority.crl())
        with receiving(config, tmp_path) as receiver:
            authority.revoked.append(own.certificate.serial_number)
            authority.crl()

            def faulty(*_: object, **__: object) -> None:
                raise OSError(errno.EIO, "Input/output error")

            with monkeypatch.context() as patch:
                patch.setattr(ssl.SSLContext, "load_verify_locations", faulty)
                receiver.scp.renew()
                receiver.scp.renew()
            assert caplog.text.count("going on with what was read before") == 1
            receiver.scp.renew()
            assert not self.let_in(receiver, authority.own.file, own)

    def test_a_list_that_was_put_back_to_its_old_time_is_read(
        self, tmp_path: Path
    ) -> None:
        """Copying may keep times, and one more entry may take no more room."""
        authority = Authority(tmp_path, "authority")
        authority.certify("gateway")
        tls = ServerTls(
            "here",
            certificate=tmp_path / "gateway-cert.pem",
            key=tmp_path / "gateway-key.pem",
            client_ca=authority.own.file,
            crl=(crl := authority.crl()),
        )
        found = crl.stat()
        crl.write_bytes(crl.read_bytes())
        os.utime(crl, ns=(found.st_atime_ns, found.st_mtime_ns))
        assert tls.renew()
        assert not tls.renew()


def test_who_hangs_up_without_a_word_is_no_stranger_who_was_turned_away(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path, "site")
    own = authority.certify("node")
    door = Listening(
        port=0,
        certificate=own.file,
        key=own.key_file,
        client_ca=authority.own.file,
    )
    with receiving(a_config(listening=door), tmp_path) as receiver:
        for _ in range(3):
            connected(receiver.port).close()
        with connected(receiver.port) as other, suppress(ConnectionResetError):
            other.sendall(b"GET / HTTP/1.0\r\n\r\n")
            while other.recv(100):
                pass
        found: dict[Rejected, int] = {}
        await_that(
            lambda: bool(found.update(receiver.rejections.taken()) or found),
            "the other one",
        )
        ((rejected, times),) = found.items()
    assert times == 1
    assert "EOF" not in rejected.reason
