"""Buckets: fsspec's in memory; and S3, as moto speaks it, where that is installed.

s3fs and moto want older libraries than the lock has: an environment of their own, with
``pip install 'miadmark[bucket]' 'moto[server]'``, runs what is left out elsewhere.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from dicom_node.backfill.bucket import Bucket
from dicom_node.backfill.filling import Filling, Sample
from dicom_node.backfill.manifest import Heading, Manifest, Status
from dicom_node.backfill.pacing import Pacing
from dicom_node.backfill.source import Found
from dicom_node.cli import main
from dicom_node.commands import terminal
from dicom_node.errors import BackfillError, SourceError
from tests.archives import digests, entries, small_objects


@pytest.fixture
def s3_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    s3fs = pytest.importorskip(
        "s3fs", reason="left out: pip install 'miadmark[bucket]'"
    )
    server = pytest.importorskip(
        "moto.server", reason="left out: pip install 'moto[server]'"
    )
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    for variable, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "name",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(variable, value)
    s3fs.S3FileSystem.clear_instance_cache()  # they remember the server of before
    name = uuid.uuid4().hex
    try:
        fsspec.filesystem("s3").mkdir(name)
        yield f"s3://{name}"
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        running.stop()


@pytest.fixture(params=["memory", "s3"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    return str(request.getfixturevalue("s3_url"))


def fill(url: str, folder: Path) -> dict[str, bytes]:
    """Put small objects there; by key."""
    small_objects(folder, 5)
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*.dcm")}
    bucket = Bucket(url)
    for name, path in files.items():
        bucket.put(name, path)
    return {name: path.read_bytes() for name, path in files.items()}


def test_a_bucket_gives_back_what_was_put(url: str, tmp_path: Path) -> None:
    put = fill(f"{url}/archive", tmp_path / "in")
    bucket = Bucket(f"{url}/archive/")
    bucket.require_there()
    names = [found.name for found in bucket.listing()]
    assert names == sorted(put)
    for number, name in enumerate(names):
        bucket.fetch(Found(name), tmp_path / f"{number}")
        assert (tmp_path / f"{number}").read_bytes() == put[name]
    bucket.remove(names[0])
    assert [found.name for found in bucket.listing()] == names[1:]
    with pytest.raises(BackfillError, match="gone"):
        bucket.fetch(Found(names[0]), tmp_path / "gone")


def test_from_bucket_to_bucket(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put = fill(f"{url}/archive", tmp_path / "in")
    command = [
        *("backfill", f"{url}/archive", "--out", f"{url}/marked", "--verify", "1"),
        *("--state", str(tmp_path / "state"), "--manifest", str(tmp_path / "manifest")),
    ]
    assert main(command) == 0
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines() == [
        "5 passed, 5 restored and compared",
        "5 done before",
    ]
    done = entries(tmp_path / "manifest")
    assert {entry["source"] for entry in done} == set(put)
    (tmp_path / "out").mkdir()
    marked = Bucket(f"{url}/marked")
    for entry in done:
        path = tmp_path / "out" / entry["source"]
        path.parent.mkdir(exist_ok=True)
        marked.get(entry["source"], path)
    after = {entry["source"]: entry["after"] for entry in done}
    assert after == digests(tmp_path / "out")


def test_a_bucket_that_is_not_there_ends_the_run(s3_url: str, tmp_path: Path) -> None:
    bucket = Bucket(f"{s3_url}-elsewhere/archive")
    small_objects(tmp_path, 1)
    (path,) = tmp_path.rglob("*.dcm")
    with pytest.raises(SourceError, match="-elsewhere/archive cannot be used"):
        bucket.put("a", path)


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("s3://name:secret@bucket/a", "a name or a password"),
        ("file:///tmp", "is a folder"),
        ("nonsense://bucket", "nothing here speaks"),
    ],
)
def test_what_is_no_bucket_is_said(url: str, match: str) -> None:
    with pytest.raises(BackfillError, match=match) as caught:
        Bucket(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["a/\x07", "a//b"])
def test_a_key_that_is_no_file_name_stays_where_it_is(key: str, tmp_path: Path) -> None:
    name = uuid.uuid4().hex
    with fsspec.filesystem("memory").open(f"/{name}/{key}", "wb") as stream:
        stream.write(b"anything")
    with Manifest(
        tmp_path / "manifest", Heading(source="a", target="b", how="c")
    ) as manifest:
        filling = Filling(
            source=Bucket(f"memory://{name}"),
            target=Bucket(f"memory://{name}-out"),
            manifest=manifest,
            work=lambda _: [],
            compare=lambda *_: None,
            sample=Sample(0.0, b""),
            pacing=Pacing(clock=lambda: 0.0, now=terminal.now, sleep=lambda _: False),
            scratch=tmp_path / "scratch",
        )
        (said,) = filling.run()
    assert said.status is Status.FAILED
    assert "cannot be that of a file" in said.reason
