from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path, PosixPath
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.backfill.dicomweb import PAGE
from dicom_node.backfill.places import Access, source_at, target_at
from dicom_node.backfill.source import Found
from dicom_node.errors import BackfillError, NodeError, SourceError
from tests.stow_server import Asked, Said, a_stow_server

NAME = "1.2/1.3/1.4.dcm"


def an_answer(*files: bytes, end: bytes = b"--\r\n") -> Said:
    """Parts of a multipart answer, as PS3.18 10.4.4 has them."""
    content = b"preamble"
    for file in files:
        content += b"\r\n--a boundary\r\nContent-Type: application/dicom\r\n\r\n" + file
    kind = 'multipart/related; type="application/dicom"; boundary="a boundary"'
    content += b"\r\n--a boundary" + end
    return Said(200, content, (("Content-Type", kind),))


def fetched(answer: Callable[[Asked], Said], to: Path, **access: Any) -> bytes:
    with a_stow_server() as server:
        server.answer = answer
        source = source_at(server.url, Access(**access))
        try:
            source.fetch(Found(NAME), to)
        finally:
            source.close()
        assert server.asked[0].path == (
            "/dicom-web/studies/1.2/series/1.3/instances/1.4"
        )
    return to.read_bytes()


@pytest.mark.parametrize(
    "file",
    [
        b"an object",
        b"",
        b"\r\n--a boundar",
        b"\r\n\r\n--a\r\n",
        bytes(range(256)) * 4000 + b"\r\n--a bounda",
    ],
    ids=["plain", "nothing", "almost its end", "lines", "large"],
)
def test_an_object_comes_as_it_was_sent(tmp_path: Path, file: bytes) -> None:
    assert fetched(lambda _: an_answer(file), tmp_path / "file") == file


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), min_size=1))
def test_it_does_not_matter_in_which_pieces_it_comes(
    file: bytes, sizes: list[int]
) -> None:
    import io

    from dicom_node.backfill.dicomweb import _OnePart

    said, stream = an_answer(file), io.BytesIO()
    part = _OnePart(stream).of(said.headers[0][1])
    content, at, number = said.content, 0, 0
    while at < len(content):
        size = sizes[number % len(sizes)]
        part(content[at : at + size])
        at, number = at + size, number + 1
    part.require_whole()
    assert stream.getvalue() == file


class _Full(PosixPath):
    """On a disk that is full."""

    def open(self, *_: object, **__: object) -> Any:
        return Path("/dev/full").open("wb", buffering=0)


def test_a_full_disk_is_no_broken_connection() -> None:
    with pytest.raises(OSError, match="No space left"):
        fetched(lambda _: an_answer(bytes(1 << 20)), _Full("anywhere"))


def test_the_token_is_shown(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n", "ascii")
    shown = []

    def answer(asked: Asked) -> Said:
        shown.append(asked.headers["Authorization"])
        return an_answer(b"an object")

    fetched(answer, tmp_path / "file", token_file=token)
    assert shown == ["Bearer secret"]


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (an_answer(b"one", b"two"), SourceError),
        (an_answer(b"cut", end=b""), SourceError),
        (an_answer(), NodeError),
        (
            Said(200, b"an object", (("Content-Type", "application/dicom"),)),
            BackfillError,
        ),
        (Said(404), BackfillError),
        (Said(500), SourceError),
        (Said(302, b"", (("Location", "http://elsewhere/"),)), SourceError),
    ],
    ids=["two", "cut", "none", "not multipart", "gone", "trouble", "elsewhere"],
)
def test_what_is_no_object_is_an_error(
    tmp_path: Path, said: Said, error: type[Exception]
) -> None:
    with pytest.raises(error):
        fetched(lambda _: said, tmp_path / "file")


def a_match(**uids: str) -> dict[str, object]:
    tags = {"study": "0020000D", "series": "0020000E", "instance": "00080018"}
    return {tags[what]: {"vr": "UI", "Value": [uid]} for what, uid in uids.items()}


def listed(
    instances: list[str], page: int, *, heeds_offset: bool = True
) -> tuple[list[str], list[Asked]]:
    """List a study of these from a server whose pages are short."""

    def answer(asked: Asked) -> Said:
        parts = urlsplit(asked.path)
        start = int(parse_qs(parts.query)["offset"][0]) if heeds_offset else 0
        if parts.path.endswith("/studies"):
            found = [a_match(study="1.2")]
        else:
            found = [a_match(series="1.3", instance=one) for one in instances]
        found = found[start : start + page]
        if not found:
            return Said(204)
        return Said(200, json.dumps(found).encode())

    with a_stow_server() as server:
        server.answer = answer
        source = source_at(server.url, Access(dates="20190101-"))
        try:
            names = [found.name for found in source.listing()]
        finally:
            source.close()
        return names, server.asked


def test_a_server_is_asked_page_by_page() -> None:
    instances = [f"1.4.{number}" for number in range(7)]
    names, asked = listed(instances, 3)
    assert names == [f"1.2/1.3/{one}.dcm" for one in instances]
    assert "StudyDate=20190101-" in asked[0].path


def test_a_server_that_heeds_no_offset_ends_all_the_same() -> None:
    names, _ = listed(["1.4.1", "1.4.2"], 2, heeds_offset=False)
    assert names == ["1.2/1.3/1.4.1.dcm", "1.2/1.3/1.4.2.dcm"]


def test_a_server_that_heeds_no_offset_may_have_more() -> None:
    instances = [f"1.4.{number}" for number in range(PAGE + 1)]
    names, _ = listed(instances, PAGE, heeds_offset=False)
    assert names == [*(f"1.2/1.3/{one}.dcm" for one in instances[:PAGE]), "1.2"]


def test_what_a_study_has_and_is_not_listed_has_failed(tmp_path: Path) -> None:
    found = [a_match(series="1.3", instance="1.4")]
    said: dict[str, list[dict[str, object]]] = {
        "studies": [
            a_match(study="1.2") | {"00201208": {"vr": "IS", "Value": [2]}},
            a_match(study="1.9") | {"00201208": {"vr": "IS", "Value": [1]}},
        ],
        "instances": found,
    }

    def answer(asked: Asked) -> Said:
        parts = urlsplit(asked.path)
        if parse_qs(parts.query)["offset"] != ["0"]:
            return Said(204)
        return Said(200, json.dumps(said[parts.path.rpartition("/")[2]]).encode())

    with a_stow_server() as server:
        server.answer = answer
        source = source_at(server.url, Access())
        try:
            names = [one.name for one in source.listing()]
            with pytest.raises(BackfillError, match="not all"):
                source.fetch(Found("1.2"), tmp_path / "file")
        finally:
            source.close()
    assert names == ["1.2/1.3/1.4.dcm", "1.2", "1.9/1.3/1.4.dcm"]


def test_what_is_no_uid_is_no_path() -> None:
    with pytest.raises(SourceError, match="no UID"):
        listed(["../../etc"], 2)


@pytest.mark.parametrize(
    "place", ["dicom://host:11112", "dicom://PACS@host", "dicom://A:b@host:11112"]
)
def test_a_pacs_has_a_title_and_a_port(place: str) -> None:
    with pytest.raises(BackfillError, match="names no PACS"):
        source_at(place, Access())


def test_nothing_is_sent_to_a_pacs_without_a_queue() -> None:
    with pytest.raises(BackfillError, match="no folder and no bucket"):
        target_at("dicom://PACS@host:11112")


def test_a_class_that_there_cannot_be_is_one_objects_trouble(tmp_path: Path) -> None:
    # Nobody listens there, and nobody is asked.
    source = source_at("dicom://PACS@127.0.0.1:9", Access())
    for no_uid in ("1.2." + "3" * 70, "CT"):
        with pytest.raises(BackfillError, match="no UID") as told:
            source.fetch(Found("1.2/1.3/1.4.dcm", no_uid, "1.4"), tmp_path / "file")
        assert not isinstance(told.value, SourceError)
