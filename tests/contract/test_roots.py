"""What holds for every place that keeps a root key."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from dicom_node.demo.loopback import make_certificate
from dicom_node.errors import KeyFolderError, KeyServiceError
from dicom_node.keys.passphrase import Cost, PassphraseRoot
from dicom_node.keys.provider import Root
from dicom_node.keys.roots import open_root, secret_in
from tests.transit_server import TransitServer

SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "a pin for nothing"
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
    (folder / "tokens").mkdir()
    config = folder / "softhsm2.conf"
    config.write_text(
        f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n"
    )
    # A process reads it once, when the library is loaded.
    os.environ["SOFTHSM2_CONF"] = str(config)
    subprocess.run(
        [
            *("softhsm2-util", "--init-token", "--free", "--label", TOKEN),
            *("--pin", PIN, "--so-pin", "another pin"),
        ],
        check=True,
        capture_output=True,
    )
    pin_file = folder / "pin"
    pin_file.write_text(PIN + "\n")
    yield pin_file
    del os.environ["SOFTHSM2_CONF"]


@pytest.fixture(scope="session")
def transit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TransitServer]:
    folder = tmp_path_factory.mktemp("transit")
    make_certificate(folder, "transit")
    certificate, key = (folder / f"transit-{part}.pem" for part in ("cert", "key"))
    with TransitServer(certificate, key) as server:
        yield server


@pytest.fixture(params=["passphrase", "token", "transit"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    if request.param == "passphrase":
        PassphraseRoot.make(tmp_path, b"correct horse", LIGHT)
        (tmp_path / "passphrase").write_text("correct horse\n")
        settings = {"kind": "passphrase"}
    elif request.param == "token":
        from dicom_node.keys.pkcs11 import Pkcs11Root

        pin_file = request.getfixturevalue("token")
        root = Pkcs11Root.make(**IN_TOKEN, label=tmp_path.name, pin=PIN.encode)
        settings = {"kind": "pkcs11", "pin_file": str(pin_file), **root.settings()}
    else:
        from dicom_node.keys.transit import TransitRoot

        server: TransitServer = request.getfixturevalue("transit")
        (tmp_path / "token").write_text("a token\n")
        over = TransitRoot(
            address=server.address,
            key=tmp_path.name,
            ca=str(server.certificate),
            access=lambda: "a token",
            is_new=True,
        )
        token_file = str(tmp_path / "token")
        settings = {"kind": "transit", "token_file": token_file, **over.settings()}

    def opened() -> Root:
        return open_root(tmp_path, settings)

    return opened(), opened


@pytest.mark.parametrize("size", [16, 32, 33, 64, 128])
def test_unwrap_undoes_wrap(made: Made, size: int) -> None:
    root, opened = made
    secret = os.urandom(size)
    wrapped = root.wrap(secret, b"what it is")
    assert secret not in wrapped
    assert root.unwrap(wrapped, b"what it is") == secret
    assert opened().unwrap(wrapped, b"what it is") == secret


def test_one_secret_is_never_wrapped_alike(made: Made) -> None:
    root, _ = made
    assert len({root.wrap(bytes(32), b"") for _ in range(20)}) == 20


def test_another_context_is_refused(made: Made) -> None:
    root, _ = made
    wrapped = root.wrap(bytes(32), b"a signing key")
    for other in (b"", b"an epoch key", b"a signing key "):
        with pytest.raises(KeyFolderError):
            root.unwrap(wrapped, other)


def test_every_flipped_bit_is_refused(made: Made) -> None:
    root, _ = made
    wrapped = root.wrap(os.urandom(32), b"")
    for position in range(len(wrapped)):
        changed = bytearray(wrapped)
        changed[position] ^= 1 << position % 8
        with pytest.raises(KeyFolderError):
            root.unwrap(bytes(changed), b"")
    for end in range(len(wrapped)):
        with pytest.raises(KeyFolderError):
            root.unwrap(wrapped[:end], b"")


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
    for version in (1, 7):
        with pytest.raises(KeyFolderError):
            root.forget(version)
    root.rotate()
    after = root.wrap(bytes(32), b"")
    root.forget(1)
    for one in (root, opened()):
        with pytest.raises(KeyFolderError):
            one.unwrap(before, b"")
        assert one.unwrap(after, b"") == bytes(32)


def test_settings_and_names_are_no_secret(made: Made) -> None:
    root, _ = made
    told = f"{root!r} {dict(root.settings())}"
    for secret in (PIN, "a token", "correct horse"):
        assert secret not in told


def test_a_token_gives_its_key_to_nobody(token: Path, tmp_path: Path) -> None:
    import pkcs11
    from pkcs11 import Attribute
    from pkcs11.exceptions import AttributeSensitive

    from dicom_node.keys.pkcs11 import Pkcs11Root

    name = tmp_path.name
    Pkcs11Root.make(**IN_TOKEN, label=name, pin=partial(secret_in, token))
    found = pkcs11.lib(str(SOFTHSM)).get_token(token_label=TOKEN)
    with found.open() as session:
        (key,) = session.get_objects({Attribute.LABEL: f"{name}-1"})
        with pytest.raises(AttributeSensitive):
            key[Attribute.VALUE]
        assert key[Attribute.EXTRACTABLE] is False


def test_another_process_opens_what_a_token_has_wrapped(
    token: Path, tmp_path: Path
) -> None:
    from dicom_node.keys.pkcs11 import Pkcs11Root

    settings = {**IN_TOKEN, "label": tmp_path.name}
    root = Pkcs11Root.make(**settings, pin=partial(secret_in, token))
    wrapped = root.wrap(b"sixteen bytes ok", b"")
    code = (
        "from dicom_node.keys.pkcs11 import Pkcs11Root\n"
        f"root = Pkcs11Root(**{settings!r}, pin=lambda: {PIN!r}.encode())\n"
        f"assert root.unwrap({wrapped!r}, b'') == b'sixteen bytes ok'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_wrong_pin_is_no_passing_trouble(token: Path) -> None:
    code = (
        "from dicom_node.errors import KeyFolderError\n"
        "from dicom_node.keys.pkcs11 import Pkcs11Root\n"
        "try:\n"
        f"    Pkcs11Root(**{IN_TOKEN!r}, label='none', pin=lambda: b'wrong')\n"
        "except KeyFolderError as error:\n"
        "    print(error)\n"
    )
    assert token.exists()
    told = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert "PIN" in told.stdout
    assert "wrong, or locked" in told.stdout


def test_a_token_that_is_not_there_is_said_to_be(token: Path) -> None:
    from dicom_node.keys.pkcs11 import Pkcs11Root

    there, pin = {**IN_TOKEN, "label": "none"}, partial(secret_in, token)
    with pytest.raises(KeyFolderError, match="holds no key"):
        Pkcs11Root(**there, pin=pin)
    with pytest.raises(KeyServiceError):
        Pkcs11Root(**there | {"token": "elsewhere"}, pin=pin)
    with pytest.raises(KeyServiceError):
        Pkcs11Root(**there | {"module": "/nowhere.so"}, pin=pin)


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


def test_a_transit_service_in_trouble_is_waited_for(
    transit: TransitServer, tmp_path: Path
) -> None:
    from dicom_node.keys.transit import TransitRoot

    tokens = iter(["a token", "a token", "renewed"])
    root = TransitRoot(
        address=transit.address,
        key=tmp_path.name,
        ca=str(transit.certificate),
        access=lambda: next(tokens),
        is_new=True,
    )
    wrapped = root.wrap(bytes(32), b"")
    transit.drops = 2
    assert root.unwrap(wrapped, b"") == bytes(32)
    transit.is_sealed = True
    with pytest.raises(KeyServiceError, match="cannot be reached"):
        root.unwrap(wrapped, b"")
    transit.is_sealed = False
    transit.tokens = {"renewed"}
    with pytest.raises(KeyServiceError, match="refuses the access token"):
        root.unwrap(wrapped, b"")
    assert root.unwrap(wrapped, b"") == bytes(32)  # the agent has renewed it
    transit.tokens = {"a token"}


def test_a_transit_service_is_asked_over_tls_it_can_prove(
    transit: TransitServer, tmp_path: Path
) -> None:
    from dicom_node.keys.transit import TransitRoot

    def root(address: str, ca: Path) -> TransitRoot:
        return TransitRoot(
            address=address, key="k", ca=str(ca), access=lambda: "a token"
        )

    make_certificate(tmp_path, "other")
    with pytest.raises(KeyServiceError, match="cannot be reached"):
        root(transit.address, tmp_path / "other-cert.pem")
    with pytest.raises(KeyFolderError, match="not https"):
        root("http://127.0.0.1:1", transit.certificate)


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
