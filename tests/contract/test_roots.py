"""What holds for every place that keeps a root key."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pkcs11
import pytest
from pkcs11 import Attribute
from pkcs11.exceptions import AttributeSensitive

from dicom_node.demo.loopback import free_ports, make_certificate
from dicom_node.errors import KeyFolderError, KeyServiceError
from dicom_node.keys import transit
from dicom_node.keys.passphrase import Cost, PassphraseRoot
from dicom_node.keys.pkcs11 import Pkcs11Root
from dicom_node.keys.provider import SECRET_SIZES, Root
from dicom_node.keys.roots import open_root
from tests.transit_server import ACCESS, TransitServer, asking, serving

SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "a pin for nothing"
PASSPHRASE = "correct horse"  # noqa: S105 opens nothing
TOKEN = "miadmark"  # noqa: S105 its label
IN_TOKEN = {"module": str(SOFTHSM), "token": TOKEN}
LIGHT = Cost(memory_kib=64, iterations=1, lanes=1)
Made = tuple[Root, Callable[[], Root]]
"""A root, and what opens it again."""


@pytest.fixture(scope="session")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A SoftHSM token for the session, and the file with its PIN."""
    if shutil.which("softhsm2-util") is None or not SOFTHSM.exists():
        pytest.skip("left out: SoftHSM2 is not installed (apt-get install softhsm2)")
    folder = tmp_path_factory.mktemp("softhsm")
    config = folder / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {folder}\nlog.level = ERROR\n")
    # A process reads it once, when the library is loaded.
    os.environ["SOFTHSM2_CONF"] = str(config)
    command = ["softhsm2-util", "--init-token", "--free", "--label", TOKEN]
    command += ["--pin", PIN, "--so-pin", "another pin"]
    subprocess.run(command, check=True, capture_output=True)
    (folder / "pin").write_text(PIN + "\n")
    yield folder / "pin"
    del os.environ["SOFTHSM2_CONF"]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[TransitServer]:
    with serving(tmp_path) as server:
        yield server


@pytest.fixture(params=["passphrase", "token", "transit"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    if request.param == "passphrase":
        PassphraseRoot.make(tmp_path, PASSPHRASE.encode(), LIGHT)
        (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
        settings = {"kind": "passphrase"}
    elif request.param == "token":
        pin_file = request.getfixturevalue("token")
        root = Pkcs11Root.make(**IN_TOKEN, label=tmp_path.name, pin=lambda: PIN)
        settings = {"kind": "pkcs11", "pin_file": str(pin_file), **root.settings()}
    else:
        over, file = asking(request.getfixturevalue("service")), tmp_path / "access"
        file.write_text(ACCESS + "\n")
        settings = {"kind": "transit", "token_file": str(file), **over.settings()}
    opened = partial(open_root, tmp_path, settings)
    return opened(), opened


def test_unwrap_undoes_wrap(made: Made) -> None:
    root, opened = made
    again = opened()
    for size in SECRET_SIZES:
        secret = os.urandom(size)
        wrapped, other = (root.wrap(secret, b"what it is") for _ in range(2))
        assert secret not in wrapped
        assert wrapped != other
        assert root.unwrap(wrapped, b"what it is") == secret
        assert again.unwrap(other, b"what it is") == secret


def test_every_flipped_bit_is_refused(made: Made) -> None:
    root, _ = made
    wrapped = root.wrap(os.urandom(16), b"")
    size, bits = len(wrapped), int.from_bytes(wrapped)
    changed = [(bits ^ 1 << bit).to_bytes(size) for bit in range(8 * size)]
    changed += [wrapped[:end] for end in range(size)]
    changed += [wrapped + end for end in (b"\n", b"=", b"\0")]
    for other in changed:
        with pytest.raises(KeyFolderError):
            root.unwrap(other, b"")
    assert len(root.unwrap(wrapped, b"")) == 16


def test_rotation_keeps_what_was_wrapped_before(made: Made) -> None:
    root, opened = made
    before = root.wrap(b"an old secret of some length", b"")
    assert (root.version, root.version_of(before)) == (1, 1)
    assert root.rotate() == 2
    after = root.wrap(b"a new secret, as long as it is", b"")
    assert (root.version, root.version_of(after)) == (2, 2)
    for one in (root, opened()):
        assert one.version == 2
        assert one.unwrap(before, b"") == b"an old secret of some length"
        assert one.unwrap(after, b"") == b"a new secret, as long as it is"


def test_a_forgotten_version_opens_nothing_more(made: Made) -> None:
    root, opened = made
    before = root.wrap(bytes(32), b"")
    for version in (0, 1, 7):
        with pytest.raises(KeyFolderError):
            root.forget(version)
    root.rotate()
    after = root.wrap(bytes(32), b"")
    root.forget(1)
    for one in (root, opened()):
        for version in (1, 2):
            with pytest.raises(KeyFolderError):
                one.forget(version)
        with pytest.raises(KeyFolderError):
            one.unwrap(before, b"")
        assert one.unwrap(after, b"") == bytes(32)


def test_another_context_is_refused_and_no_secret_is_told(made: Made) -> None:
    root, _ = made
    wrapped = root.wrap(b"sixteen secret bytes", b"a signing key")
    told = f"{root!r} {dict(root.settings())}"
    for other in (b"", b"an epoch key", b"a signing key "):
        with pytest.raises(KeyFolderError) as caught:
            root.unwrap(wrapped, other)
        told += caught.value.hint + "".join(traceback.format_exception(caught.value))
    for secret in (PIN, ACCESS, PASSPHRASE, "sixteen secret"):
        assert secret not in told


def test_a_token_gives_its_key_to_nobody(token: Path, tmp_path: Path) -> None:
    settings = {**IN_TOKEN, "label": tmp_path.name}
    Pkcs11Root.make(**settings, pin=token.read_bytes)
    with pytest.raises(KeyFolderError, match="already"):
        Pkcs11Root.make(**settings, pin=token.read_bytes)
    with pkcs11.lib(str(SOFTHSM)).get_token(token_label=TOKEN).open() as session:
        (key,) = session.get_objects({Attribute.LABEL: f"{tmp_path.name}-1"})
        with pytest.raises(AttributeSensitive):
            key[Attribute.VALUE]
        assert key[Attribute.ID] == bytes([0, 0, 0, 1])
        assert not any(key[what] for what in (Attribute.EXTRACTABLE, Attribute.WRAP))


def elsewhere(code: str) -> str:
    """Run it in another process, with ``Pkcs11Root``; return what it prints."""
    command = [sys.executable, "-c", f"from {Pkcs11Root.__module__} import *\n{code}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_two_processes_share_a_token(token: Path, tmp_path: Path) -> None:
    settings = {**IN_TOKEN, "label": tmp_path.name}
    root = Pkcs11Root.make(**settings, pin=token.read_bytes)
    code = (
        f"root = Pkcs11Root(**{settings!r}, pin=lambda: {PIN!r})\n"
        f"secret = root.unwrap({root.wrap(bytes(16), b'')!r}, b'')\n"
        "root.rotate(); root.forget(1)\n"
        "print(root.wrap(secret, b'').hex())\n"
    )
    assert root.unwrap(bytes.fromhex(elsewhere(code)), b"") == bytes(16)
    with pytest.raises(KeyFolderError):
        root.forget(2)  # the newest, of which this process has not heard
    assert root.version_of(root.wrap(bytes(16), b"")) == 2


def test_a_library_that_others_could_have_written_is_not_loaded(
    token: Path, tmp_path: Path
) -> None:
    settings = {"kind": "pkcs11", "pin_file": str(token), "label": "x", "token": TOKEN}
    library = tmp_path / "evil.so"
    library.write_bytes(b"")
    library.chmod(0o666)
    with pytest.raises(KeyFolderError, match="can be written by others"):
        open_root(tmp_path, {**settings, "module": str(library)})
    with pytest.raises(KeyFolderError, match="cannot be read"):
        open_root(tmp_path, {**settings, "module": str(tmp_path / "none.so")})


def test_a_token_that_does_not_open_is_told_from_one_that_is_away(token: Path) -> None:
    code = f"try: Pkcs11Root(**{IN_TOKEN!r}, pin=lambda: b'98765')\n"
    told = elsewhere(code + "except KeyFolderError as e: print(e, e.hint)")
    assert "wrong, or locked" in told
    assert "98765" not in told
    with pytest.raises(KeyFolderError, match="holds no key miadmark-root"):
        Pkcs11Root(**IN_TOKEN, pin=token.read_bytes)
    for other in ({"token": "elsewhere"}, {"module": "/nowhere.so"}):
        with pytest.raises(KeyServiceError, match="cannot be reached"):
            Pkcs11Root(**IN_TOKEN | other, pin=token.read_bytes)


def test_threads_take_turns_and_a_lost_session_is_opened_anew(
    token: Path, tmp_path: Path
) -> None:
    settings = {**IN_TOKEN, "label": tmp_path.name}
    pin = iter([token.read_bytes()]).__next__  # can be asked for once
    root = Pkcs11Root.make(**settings, pin=pin)
    other = Pkcs11Root(**settings, pin=token.read_text)

    def both(number: int) -> bool:
        secret = number.to_bytes(16)
        return other.unwrap(root.wrap(secret, b""), b"") == secret

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(both, range(60)))
    pkcs11.lib(str(SOFTHSM)).reinitialize()  # every session is gone
    assert both(1)
    pkcs11.lib(str(SOFTHSM)).reinitialize()
    root._pin = "changed meanwhile"
    for _ in range(2):
        with pytest.raises(KeyFolderError, match="wrong, or locked"):
            root.unwrap(bytes(48), b"")
        root._pin = PIN  # a token that locks is not asked twice


FAULTS: dict[str, dict[str, object]] = {
    "503": {"is_sealed": True},
    "403": {"tokens": set()},
    "429": {"answer": lambda *_: (429, {"errors": [ACCESS]})},
    "no secret": {"answer": lambda *_: (200, {"data": None})},
    "ProtocolError": {"drops": 9},
    "ReadTimeoutError": {"delay_s": 3.0},
}


@pytest.mark.parametrize("told", FAULTS)
def test_a_transit_service_in_trouble_says_in_which(
    service: TransitServer, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    monkeypatch.setattr(transit, "READ_S", 1.0)
    root = asking(service)
    wrapped = root.wrap(bytes(32), b"")
    for name, value in FAULTS[told].items():
        setattr(service, name, value)
    with pytest.raises(KeyServiceError, match=told) as caught:
        root.unwrap(wrapped, b"")
    assert ACCESS not in str(caught.value)
    tries = 4 if told in {"503", "ProtocolError"} else 1
    assert service.seen.count("POST /v1/transit/decrypt/k") == tries


def test_a_transit_service_that_was_away_is_asked_again(service: TransitServer) -> None:
    tokens = iter([ACCESS, "renewed"])
    root = asking(service, lambda: next(tokens), namespace="site")
    wrapped = root.wrap(bytes(32), b"")
    assert service.headers["X-Vault-Namespace"] == "site"
    service.tokens, service.drops = {"renewed"}, 3
    assert root.unwrap(wrapped, b"") == bytes(32)
    service.lost = "rotate"  # it does, and nobody hears of it
    assert (root.rotate(), root.rotate()) == (2, 3)
    with pytest.raises(KeyFolderError) as caught:
        root.forget(2)
    assert "Version 1 goes first" in caught.value.hint
    service.keys.clear()
    with pytest.raises(KeyFolderError, match="key not found"):
        root.unwrap(wrapped, b"")


def test_a_transit_service_is_asked_over_tls_it_can_prove(
    service: TransitServer, tmp_path: Path
) -> None:
    make_certificate(tmp_path, "other")
    with pytest.raises(KeyServiceError, match="SSLError"):
        asking(service, ca=str(tmp_path / "other-cert.pem"))
    with pytest.raises(KeyServiceError, match="NewConnectionError"):
        asking(service, address=f"https://127.0.0.1:{free_ports(1)[0]}")
    named, plain = (f"{kind}://user:secret@127.0.0.1:1" for kind in ("https", "http"))
    for address in ("http://127.0.0.1:1", named, plain, service.address + "/v1", ""):
        with pytest.raises(KeyFolderError, match="no https://host:port") as caught:
            asking(service, address=address)
        assert "secret" not in str(caught.value)


def test_a_wrong_passphrase_and_a_damaged_file_are_named(tmp_path: Path) -> None:
    root = PassphraseRoot.make(tmp_path, b"right", LIGHT)
    wrapped = root.wrap(bytes(32), b"")
    with pytest.raises(KeyFolderError, match="does not open"):
        PassphraseRoot.open(tmp_path, lambda: b"wrong")
    root.change_passphrase(b"another")
    again = PassphraseRoot.open(tmp_path, lambda: b"another")
    assert again.unwrap(wrapped, b"") == bytes(32)
    (tmp_path / "root.json").write_text("{}")
    with pytest.raises(KeyFolderError, match="damaged"):
        PassphraseRoot.open(tmp_path, lambda: b"another")
