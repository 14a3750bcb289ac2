"""A bucket, as a source and as a target: whatever fsspec speaks, S3 first of all.

Where it is, and with which keys it is asked, is said as fsspec's file systems want it:
for S3 in the environment or in ``~/.aws``, never on a command line. A key is a name below
the prefix of its URL. An object is taken for durable once the store has said that it has
it, and shows it whole: as S3 does, and the stores that are like it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dicom_node.backfill.source import Found
from dicom_node.backfill.target import plain
from dicom_node.durable import FULL
from dicom_node.errors import BackfillError, SourceError
from dicom_node.extras import extra

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Bucket:
    """What lies below a URL; a source, or a target."""

    def __init__(self, url: str) -> None:
        """Find what speaks to it; nothing is asked yet.

        Args:
            url: As ``s3://bucket/prefix``.

        Raises:
            ConfigError: The extra is not installed.
            BackfillError: Nothing speaks to that, or the URL holds a password.
        """
        if "@" in urlsplit(url).netloc:
            raise BackfillError(
                "the URL of the bucket holds a name or a password",
                hint="They go into the environment (AWS_ACCESS_KEY_ID and others), or "
                "into ~/.aws.",
            )
        if urlsplit(url).scheme in {"file", "local"}:
            raise BackfillError(f"{url} is a folder", hint="Name it without file://.")
        self.address = url.rstrip("/")
        with extra("bucket", "a bucket"):
            import fsspec
        try:
            with extra("bucket", f"{urlsplit(url).scheme}://"):
                # What others put there meanwhile is to be seen.
                system, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise BackfillError(
                f"nothing here speaks to {self.address}",
                hint="pip install 'miadmark[bucket]' speaks S3; fsspec has others.",
            ) from error
        self._system: Any = system
        self._root = str(root).rstrip("/")

    def count(self) -> int | None:
        """Return nothing: a store counts by listing all of it."""
        return None

    def listing(self) -> Iterator[Found]:
        """Yield the keys, those of a level in order."""
        yield from self._level(self._root)

    def _level(self, level: str) -> Iterator[Found]:
        with self._asked():
            known = self._system.ls(level, detail=True)
        for one in sorted(known, key=lambda one: str(one["name"])):
            raw = str(one["name"])
            path = raw.rstrip("/")
            if path == level and (one["type"] != "directory" or "LastModified" in one):
                if not one.get("size"):
                    continue  # an empty object that stands for the level, as some have
                yield self._of(raw)
            elif one["type"] == "directory" and path != level:
                yield from self._level(path)
            else:
                # Also what lies behind an empty part, as in a//b: file systems cannot go
                # there. It fails by its name.
                yield self._of(raw)

    def _of(self, path: str) -> Found:
        return Found(path.removeprefix(f"{self._root}/") or "/")

    def fetch(self, found: Found, to: Path) -> None:
        """Get an object."""
        try:
            with self._asked():
                self._system.get_file(self._path(found.name), str(to))
        except FileNotFoundError as error:
            raise BackfillError("it is gone") from error
        except PermissionError as error:
            raise BackfillError("it may not be read") from error

    def put(self, name: str, file: Path) -> None:
        """Put an object, and hold that all of it is there."""
        path = self._path(str(plain(name)))
        try:
            with self._asked():
                self._system.put_file(str(file), path)
                size = self._system.info(path)["size"]
        except (FileNotFoundError, PermissionError) as error:
            raise self._unusable(error) from error
        if size != file.stat().st_size:
            raise SourceError(f"{self.address} has another size than was put there")

    def get(self, name: str, to: Path) -> None:
        """Get an object that was put."""
        try:
            with self._asked():
                self._system.get_file(self._path(name), str(to))
        except (FileNotFoundError, PermissionError) as error:
            raise self._unusable(error) from error

    def remove(self, name: str) -> None:
        """Delete an object that was put."""
        try:
            with self._asked():
                self._system.rm_file(self._path(name))
        except (FileNotFoundError, PermissionError) as error:
            raise self._unusable(error) from error

    def require_there(self) -> None:
        """Return if the store says what it knows of the prefix."""
        try:
            with self._asked():
                self._system.info(self._root)
        except (FileNotFoundError, PermissionError) as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        """Do nothing: connections end with the process."""

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Say that the bucket cannot be used; what is one object's trouble goes by."""
        try:
            yield
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise  # of the disk here
            # Each file system has errors of its own; some quote what was asked for.
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> SourceError:
        return SourceError(
            f"{self.address} cannot be used: {type(error).__name__}",
            hint="Is it there, and do the keys in the environment open it?",
        )
