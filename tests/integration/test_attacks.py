"""Whoever is not who it says it is, is turned away before it can say anything else.

Each attack asks for an association and sends an echo and an instance, whatever it hears.
It must not be let in, and nothing of it may reach a handler.
"""

from __future__ import annotations

import re
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from dicom_node.demo.loopback import await_that
from dicom_node.listening import Guarding, Listening, Peer
from dicom_node.upper_layer import GuardedDimse
from tests.callers import (
    ABORTED,
    ACCEPTED,
    ECHO,
    REJECTED,
    Receiver,
    a_config,
    answer,
    associate,
    connected,
    data,
    item,
    pdu,
    receiving,
    secured,
    store_command,
)
from tests.certificates import DAY, Authority, Credential

MR = "mr1.hospital.example"


def dns(*names: str) -> tuple[x509.GeneralName, ...]:
    return tuple(x509.DNSName(name) for name in names)


@dataclass
class Site:
    """A gateway that wants certificates, and those that there are."""

    receiver: Receiver
    authority: Authority
    other: Authority
    known: dict[str, Credential]

    @property
    def port(self) -> int:
        return self.receiver.port

    @property
    def ca(self) -> Path:
        return self.authority.own.file


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "other").mkdir()
    authority = Authority(folder, "authority")
    known = {
        "CT1": authority.certify("ct1"),
        "MR1": authority.certify("mr1", names=dns(MR)),
        "US1": authority.certify("us1", names=dns("us1.hospital.example")),
        "XA1": authority.certify("xa1"),
        "revoked": authority.certify("revoked"),
    }
    authority.revoked.append(known["revoked"].certificate.serial_number)
    gateway = authority.certify("gateway")
    peers = (
        Peer(
            ae_title="CT1",
            fingerprints=(known["CT1"].fingerprint, known["revoked"].fingerprint),
        ),
        Peer(ae_title="MR1", names=(MR,)),
        Peer(
            ae_title="US1",
            fingerprints=(known["US1"].fingerprint,),
            names=("us1.hospital.example",),
        ),
        Peer(
            ae_title="XA1",
            fingerprints=(known["XA1"].fingerprint,),
            addresses=("192.0.2.0/24", "127.0.0.2"),
        ),
    )
    listening = Listening(
        port=0,
        certificate=gateway.file,
        key=gateway.key_file,
        client_ca=authority.own.file,
        crl=authority.crl(),
    )
    config = a_config(listening=listening, peers=peers, guard=Guarding(request_s=3))
    with receiving(config, folder) as receiver:
        other = Authority(folder / "other", "authority")
        yield Site(receiver, authority, other, known)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What has come as far as the messages of an association."""
    found: list[object] = []
    taken = GuardedDimse.receive_primitive

    def receive_primitive(self: GuardedDimse, primitive: object) -> None:
        found.append(primitive)
        taken(self, primitive)  # type: ignore[arg-type]

    monkeypatch.setattr(GuardedDimse, "receive_primitive", receive_primitive)
    return found


PUSHED = ECHO + store_command() + data(b"\x08\x00\x16\x00" + bytes(100), control=2)
"""What a peer would send that takes itself to be let in."""


def outcome(
    site: Site,
    credential: Credential | None,
    request: bytes,
    context: ssl.SSLContext | None = None,
) -> int:
    """The type of the PDU that answers; 0 if there is none."""
    try:
        connection = secured(site.port, site.ca, credential, context)
    except (ssl.SSLError, ConnectionError):
        return 0
    with connection:
        with suppress(ConnectionError, ssl.SSLError):
            connection.sendall(request)
        kind, _ = answer(connection)
        with suppress(ConnectionError, ssl.SSLError):
            connection.sendall(PUSHED)
            connection.unwrap()
        return kind


@pytest.mark.parametrize(
    ("title", "made"),
    [
        pytest.param("CT1", lambda s: s.known["CT1"], id="a key"),
        pytest.param(" CT1", lambda s: s.known["CT1"], id="spaces around it"),
        pytest.param("MR1", lambda s: s.known["MR1"], id="a name"),
        pytest.param(
            "MR1",
            lambda s: s.authority.certify("x", names=dns("a.example", MR)),
            id="one of several names",
        ),
        pytest.param(
            "MR1",
            lambda s: s.authority.certify("x", names=dns(MR.upper())),
            id="a name in capitals",
        ),
        pytest.param(
            "CT1",
            lambda s: s.authority.certify(
                "renewed", key=s.known["CT1"].private_key, until=2 * DAY
            ),
            id="a renewed certificate for the same key",
        ),
        pytest.param("US1", lambda s: s.known["US1"], id="a key and a name"),
    ],
)
def test_who_a_peer_is_lets_it_in(
    site: Site, title: str, made: Callable[[Site], Credential]
) -> None:
    with secured(site.port, site.ca, made(site)) as connection:
        connection.sendall(associate(title) + ECHO)
        assert answer(connection)[0] == ACCEPTED
        kind, content = answer(connection)
        assert (kind, content[-2:]) == (0x04, b"\0\0")  # success


def made(**values: object) -> Callable[[Site], Credential]:
    """What makes a certificate of the right authority."""
    return lambda site: site.authority.certify("x", **values)  # type: ignore[arg-type]


def with_names(*names: x509.GeneralName) -> Callable[[Site], Credential]:
    return made(names=names)


def known(name: str) -> Callable[[Site], Credential]:
    return lambda site: site.known[name]


def of_no_authority(site: Site) -> Credential:
    alone = site.receiver.incoming.parent / "alone"
    alone.mkdir(exist_ok=True)
    return Authority(alone, "ct1").own


def signed_by_a_peer(site: Site) -> Credential:
    return site.authority.certify("x", names=dns(MR), signed_by=site.known["CT1"])


def damaged(site: Site) -> Credential:
    found = site.authority.certify("damaged", names=dns(MR))
    encoded = bytearray(found.certificate.public_bytes(Encoding.DER))
    encoded[-1] ^= 1  # the signature's last bit
    text = ssl.DER_cert_to_PEM_cert(bytes(encoded))
    found.file.write_text(text, "ascii")
    return found


CERTIFICATES = {
    "none": ("CT1", None),
    "of no authority": ("CT1", of_no_authority),
    "of another authority of the same name": (
        "MR1",
        lambda s: s.other.certify("mr1", names=dns(MR)),
    ),
    "the right key, certified by another authority": (
        "CT1",
        lambda s: s.other.certify("ct1", key=s.known["CT1"].private_key),
    ),
    "over": ("MR1", made(names=dns(MR), until=-DAY / 2)),
    "not begun": ("MR1", made(names=dns(MR), since=DAY, until=2 * DAY)),
    "revoked": ("CT1", known("revoked")),
    "for servers": (
        "MR1",
        made(names=dns(MR), usages=(ExtendedKeyUsageOID.SERVER_AUTH,)),
    ),
    "for signing code": (
        "MR1",
        made(names=dns(MR), usages=(ExtendedKeyUsageOID.CODE_SIGNING,)),
    ),
    "for mail": (
        "MR1",
        made(names=dns(MR), usages=(ExtendedKeyUsageOID.EMAIL_PROTECTION,)),
    ),
    "signed by a peer": ("MR1", signed_by_a_peer),
    "damaged": ("MR1", damaged),
    "the authority's own": ("CT1", lambda s: s.authority.own),
    "nobody's, title unknown": ("NOBODY", made()),
    "somebody's, title unknown": ("NOBODY", known("CT1")),
    "another title's key": ("CT1", known("XA1")),
    "another title's name": ("CT1", known("MR1")),
    "a title that has a name, by a key that has a title": ("MR1", known("CT1")),
    "the title, for a name": ("MR1", with_names(x509.DNSName("MR1"))),
    "no name but a common one": ("MR1", lambda s: s.authority.certify(MR, names=())),
    "a wildcard": ("MR1", with_names(*dns("*.hospital.example"))),
    "several names, none of them": ("MR1", with_names(*dns("a.example", "b.example"))),
    "the name with something behind it": ("MR1", with_names(*dns(f"{MR}.example"))),
    "the name with something before it": ("MR1", with_names(*dns(f"x{MR}"))),
    "the name with a dot behind it": ("MR1", with_names(*dns(f"{MR}."))),
    "the name within spaces": ("MR1", with_names(*dns(f" {MR} "))),
    "the name and a zero": ("MR1", with_names(*dns(f"{MR}\0.example"))),
    "the name as an address of mail": (
        "MR1",
        with_names(x509.RFC822Name(f"mr1@{MR}")),
    ),
    "the name as a resource": (
        "MR1",
        with_names(x509.UniformResourceIdentifier(MR)),
    ),
    "the name as a directory's": (
        "MR1",
        with_names(
            x509.DirectoryName(
                x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, MR)])
            )
        ),
    ),
    "the right name, another key": (
        "US1",
        made(names=dns("us1.hospital.example")),
    ),
    "the right key, another name": (
        "US1",
        lambda s: s.authority.certify("x", names=(), key=s.known["US1"].private_key),
    ),
    "the right one, from elsewhere": ("XA1", known("XA1")),
}


@pytest.mark.parametrize("case", CERTIFICATES)
def test_a_certificate_that_is_not_the_titles_is_refused(
    site: Site, heard: list[object], caplog: pytest.LogCaptureFixture, case: str
) -> None:
    title, make = CERTIFICATES[case]
    credential = None if make is None else make(site)
    assert outcome(site, credential, associate(title)) in {0, REJECTED, ABORTED}
    await_that(lambda: "refused from=127.0.0.1" in caplog.text, "a line in the log")
    assert not heard
    assert not site.receiver.received


def test_without_a_certificate_no_request_is_read(site: Site) -> None:
    assert outcome(site, None, associate("CT1")) == 0
    assert outcome(site, site.known["MR1"], associate("CT1")) == REJECTED


def identity(kind: int, content: bytes) -> bytes:
    """A User Identity sub-item (PS3.7 D.3.3.7)."""
    return item(0x58, bytes([kind, 1]) + content)


REQUESTS = {
    "another's title": associate("MR1"),
    "another's title, padded": associate("   MR1"),
    "in lower case": associate("ct1"),
    "a space within": associate("C T1"),
    "a zero behind": associate(b"CT1\0"),
    "a zero and another's": associate(b"CT1\0MR1"),
    "no calling title": associate(""),
    "zeros for a calling title": associate(bytes(16)),
    "a backslash": associate(b"CT1\\MR1"),
    "a line's end": associate(b"CT1\nMR1"),
    "letters beyond ASCII": associate("CT1é".encode()),
    "the gateway's own title": associate("GATEWAY"),
    "another node called": associate("CT1", "SOMEBODY"),
    "the node called in lower case": associate("CT1", "gateway"),
    "nobody called": associate("CT1", ""),
    "a protocol of the future": associate("CT1", version=2),
    "an identity that is cut short": associate(
        "CT1", more=item(0x58, b"\x01\x01\x00\xff")
    ),
    "an identity of no kind": associate(
        "CT1", more=identity(200, struct.pack(">H", 9999) + b"x")
    ),
    "an item that is longer than the request": associate(
        "CT1", more=b"\x51\x00\xff\xff"
    ),
    "four gigabytes": pdu(0x01, b"", length=0xFFFFFFFF),
    "data, first of all": ECHO,
    "an acceptance": pdu(0x02, associate("CT1")[6:]),
    "a release": pdu(0x05, bytes(4)),
    "no PDU": b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("case", REQUESTS)
def test_a_request_that_is_not_the_certificates_is_refused(
    site: Site, heard: list[object], caplog: pytest.LogCaptureFixture, case: str
) -> None:
    caplog.set_level("INFO")
    credential = site.known["CT1"]
    assert outcome(site, credential, REQUESTS[case]) in {0, REJECTED, ABORTED}
    if case != "a protocol of the future":  # pynetdicom turns it away, without a word
        said = re.compile("(refused|cut off) from=127.0.0.1")
        await_that(lambda: said.search(caplog.text) is not None, "a line in the log")
    assert not heard
    assert not site.receiver.received


def test_a_title_that_has_a_certificate_is_refused_without_tls(
    site: Site, heard: list[object], tmp_path: Path
) -> None:
    peer = Peer(ae_title="CT1", fingerprints=(site.known["CT1"].fingerprint,))
    with (
        receiving(a_config(peers=(peer,)), tmp_path) as plain,
        connected(plain.port) as connection,
    ):
        connection.sendall(associate("CT1") + PUSHED)
        kind, reason = answer(connection)
        assert (kind, tuple(reason[1:])) == (REJECTED, (1, 1, 3))
        assert not heard


def test_plain_bytes_to_a_port_with_tls_say_nothing(
    site: Site, heard: list[object]
) -> None:
    with connected(site.port) as connection:
        connection.sendall(associate("CT1") + PUSHED)
        assert answer(connection)[0] not in {ACCEPTED, 0x04}
    assert not heard


def old(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = version
    return context


@pytest.mark.filterwarnings("ignore:.*TLSv1.*:DeprecationWarning")
@pytest.mark.parametrize("way", ["TLS 1", "TLS 1.1", "without authentication", "CBC"])
def test_weak_tls_is_refused(site: Site, heard: list[object], way: str) -> None:
    if way.startswith("TLS"):
        context = old(ssl.TLSVersion[way.replace(" ", "v").replace(".", "_")])
        context.set_ciphers("ALL:@SECLEVEL=0")
    else:
        context = old(ssl.TLSVersion.TLSv1_2)
        context.set_ciphers(
            "ECDHE-ECDSA-AES256-SHA" if way == "CBC" else "aNULL:@SECLEVEL=0"
        )
    context.load_verify_locations(site.ca)
    assert outcome(site, site.known["CT1"], associate("CT1"), context) == 0
    assert not heard


def test_after_all_of_it_a_peer_is_let_in(site: Site) -> None:
    assert replace(site).receiver.received == []
    assert outcome(site, site.known["CT1"], associate("CT1")) == ACCEPTED
