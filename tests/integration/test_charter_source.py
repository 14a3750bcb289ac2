"""A node looks for its site's charter, over HTTPS too, and goes on without."""

from __future__ import annotations

import errno
import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from dicom_node.charter_source import Known
from dicom_node.chartered import Following
from dicom_node.config_file import load
from dicom_node.errors import ConfigError, KeyFolderError, KeyServiceError
from dicom_node.following import Follower, issue
from dicom_node.sameness import keep_search
from tests.certificates import Authority
from tests.fleet import Site


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path, authority: Authority) -> Iterator[str]:
    """A web server of another make, with TLS."""
    shown = authority.certify("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.file, shown.key_file)
    server = HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path / "site")
    made.joined("n1")
    return made


def follower(site: Site, source: str, ca: Path | None = None) -> Follower:
    state = site.node("n1")
    following = Following(source=source, ca=ca)
    return Follower(state, state.keys(), following, state.clock)


def publisher(site: Site, target: Path) -> Follower:
    state = site.lead
    return Follower(state, state.keys(), Following(publish=target), state.clock)


def test_a_newer_charter_comes_over_https(site: Site, tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "charter.json").write_bytes(site.issue())
    authority = Authority(tmp_path, "site-ca")
    with serving(tmp_path / "www", authority) as address:
        source = f"{address}/charter.json"
        following = follower(site, source, authority.own.file)
        assert following.turn()
        assert not following.turn()
        with pytest.raises(KeyServiceError, match="answers 404"):
            follower(site, f"{address}/gone.json", authority.own.file).turn()
        other = Authority(tmp_path, "other-ca")
        with pytest.raises(KeyServiceError, match="SSLError"):
            follower(site, source, other.own.file).turn()
    assert site.keys("n1").nodes.number == 2


def test_without_its_source_a_node_goes_on_and_says_how_old(
    site: Site, tmp_path: Path
) -> None:
    file, state = tmp_path / "charter.json", site.node("n1")
    file.write_bytes(site.issue())
    assert follower(site, str(file)).turn()
    since = site.moment
    file.unlink()
    site.moment += timedelta(hours=3)
    with pytest.raises(KeyServiceError, match="No such file"):
        follower(site, str(file)).turn()
    known = Known.of(state.folder)
    assert known is not None
    assert (known.number, known.reached) == (2, since)
    assert "3 h ago" in known.lines(site.moment)[0]
    assert state.keys().epochs.newest().version == 1
    file.write_bytes(site.issue())
    assert follower(site, str(file)).turn()
    known = Known.of(state.folder)
    assert known is not None
    assert (known.number, known.reason) == (3, "")


def test_what_is_no_charter_changes_nothing(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "charter.json"
    for content in (b"", b"{}", b"[" * 100_000, b"\xff" * 100):
        file.write_bytes(content)
        with pytest.raises(KeyFolderError, match="is no charter"):
            follower(site, str(file)).turn()
    assert site.keys("n1").nodes.number == 1


def test_the_lead_issues_when_something_has_changed_and_now_and_then(
    site: Site, tmp_path: Path
) -> None:
    target = tmp_path / "charter.json"
    lead = publisher(site, target)
    assert lead.turn()
    assert not lead.turn()
    keep_search(site.lead.folder, "another search")
    assert lead.turn()
    assert site.take("n1", target.read_bytes())
    assert site.keys("n1").nodes.search == "another search"
    assert not lead.turn()
    site.moment += timedelta(hours=25)
    assert lead.turn()
    target.unlink()
    assert lead.turn()
    assert site.take("n1", target.read_bytes())


def test_a_charter_that_could_not_be_written_is_issued_until_it_is(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "charter.json"
    assert publisher(site, target).turn()
    keep_search(site.lead.folder, "another search")
    with monkeypatch.context() as patched:
        patched.setattr("dicom_node.following.write_durably", _full)
        for _ in range(2):
            with pytest.raises(KeyServiceError, match="No space left"):
                publisher(site, target).turn()
    known = Known.of(site.lead.folder)
    assert known is not None
    assert "No space left" in known.reason
    assert publisher(site, target).turn()
    assert site.take("n1", target.read_bytes())
    assert site.keys("n1").nodes.search == "another search"
    assert not publisher(site, target).turn()


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_charter_that_was_issued_into_another_file_is_published_too(
    site: Site, tmp_path: Path
) -> None:
    target, state = tmp_path / "charter.json", site.lead
    assert publisher(site, target).turn()
    keep_search(state.folder, "another search")
    issue(state, state.keys(), tmp_path / "other.json", state.clock(), by="anna")
    assert publisher(site, target).turn()
    assert site.take("n1", target.read_bytes())
    assert site.keys("n1").nodes.search == "another search"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", "one of source and publish"),
        ('source = "a"\npublish = "b"', "one of source and publish"),
        ('source = "http://site.example/charter"', "A file, or https://"),
        ('source = "a"\nevery_s = 0', "above 0"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(
    tmp_path: Path, table: str, said: str
) -> None:
    file = tmp_path / "node.toml"
    file.write_text(f"[charter]\n{table}\n", "utf-8")
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert said in f"{caught.value} {caught.value.hint}"


def test_a_file_starts_at_the_folder_of_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('[charter]\nsource = "share/charter.json"\n', "utf-8")
    charter = load(file).charter
    assert charter is not None
    assert charter.source == str(tmp_path / "share" / "charter.json")
