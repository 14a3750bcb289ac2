"""What may be said of a destination, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.config_file import read
from dicom_node.destination import Destination, Kind
from dicom_node.errors import ConfigError
from dicom_node.listening import Peer

URL = "https://pacs.example/dicom-web/"

PACS = {"kind": Kind.DICOM, "url": "", "ae_title": "A", "host": "a"}


def stow(**more: object) -> Destination:
    values = {"name": "web", "kind": Kind.STOW, "url": URL}
    return Destination(**values | more)  # type: ignore[arg-type]


def test_a_web_server_has_an_address_as_grants_name_it() -> None:
    assert stow().address == "pacs.example:443"
    assert stow(url="http://127.0.0.1:8042/x").address == "127.0.0.1:8042"
    assert stow().has_tls
    assert not stow(url="http://127.0.0.1/x").has_tls


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"url": ""}, "url"),
        ({"url": "ftp://pacs.example/"}, "url"),
        ({"url": "https://pacs.example:99999/"}, "url"),
        ({"url": "https://pacs..example/"}, "url"),
        ({"url": f"https://{'a' * 64}.example/"}, "url"),
        ({"url": "https://pacs.example/dicom-wäb"}, "path"),
        ({"url": "https://pacs.example/dicom web"}, "path"),
        ({"kind": Kind.DICOM, "url": "", "ae_title": "A", "host": "a..b"}, "host"),
        ({"url": "https://me:secret@pacs.example/"}, "password"),
        ({"url": "http://pacs.example/", "token_file": Path("t")}, "in the clear"),
        ({"url": "http://127.0.0.1/", "ca": Path("ca.pem")}, "https"),
        ({"certificate": Path("c.pem")}, "go together"),
        ({"commitment": True}, "commitment"),
        ({"calling_ae_title": "A"}, "calling_ae_title"),
        ({"passes_calling_ae_title": True}, "passes_calling_ae_title"),
        ({**PACS, "calling_ae_title": "a title of 18 letters"}, "ae_title"),
        (
            {**PACS, "calling_ae_title": "B", "passes_calling_ae_title": True},
            "title and",
        ),
        ({"tls_ca": Path("ca.pem")}, "tls_ca"),
        ({"host": "pacs.example"}, "host"),
        ({"request_mb": 0.0}, "not above 0"),
        ({"kind": Kind.DICOM, "ae_title": "A", "host": "a"}, "url"),
        ({"kind": Kind.DICOM, "url": "", "host": "a"}, "needs an ae_title"),
        ({**PACS, "certificate": Path("c"), "key": Path("k")}, "over TLS alone"),
        ({**PACS, "tls_ca": Path("a"), "certificate": Path("c")}, "go together"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else value,
)
def test_what_cannot_work_is_refused(more: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        stow(**more)


CONFIG = """
[[destination]]
name = "web"
kind = "stow"
url = "https://pacs.example/dicom-web"
token_file = "token"
{title}

[[route]]
name = "originals"
destination = "web"
action = "strip"
"""


def test_who_is_sent_originals_has_a_title_that_grants_name(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    with pytest.raises(ConfigError, match="no ae_title"):
        read(CONFIG.replace("{title}", "").encode(), file)
    config = read(CONFIG.replace("{title}", 'ae_title = "WEB"').encode(), file)
    assert config.destinations[0].token_file == tmp_path / "token"
    assert not config.commits


def test_a_title_alone_may_not_ask_what_is_safe() -> None:
    with pytest.raises(ConfigError, match="nothing but a title"):
        Peer(ae_title="CT1", commitment=True)
    assert Peer(ae_title="CT1", commitment=True, addresses=("192.0.2.7",)).is_proven


def test_a_peer_is_shown_a_certificate_over_tls_alone() -> None:
    with pytest.raises(ConfigError, match="over TLS alone"):
        Peer(ae_title="CT1", certificate=Path("c"), key=Path("k"))
    Peer(ae_title="CT1", tls_ca=Path("a"), certificate=Path("c"), key=Path("k"))
