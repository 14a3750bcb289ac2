"""Write a CycloneDX bill of materials of the environment that this runs in.

What packages say of themselves comes from cyclonedx-bom. What they do not say is added
here: the native libraries inside them and under Python, the two OpenSSLs above all. Their
versions are asked of the libraries themselves, where they tell; what is only found as a
file inside a wheel is named by that file, with its digest.

::

    python deploy/sbom.py FILE [--python ENVIRONMENT/bin/python]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ASKED = """
import json, platform, sqlite3, ssl, sys, zlib
from importlib import metadata

found = [
    ("CPython", platform.python_version(), "the interpreter"),
    ("OpenSSL", ssl.OPENSSL_VERSION.split()[1], "of Python: TLS"),
    ("SQLite", sqlite3.sqlite_version, "of Python: queue, ledger, grants"),
    ("zlib", zlib.ZLIB_RUNTIME_VERSION, "of Python"),
]
from cryptography.hazmat.backends.openssl import backend
found.append(("OpenSSL", backend.openssl_version_text().split()[1], "of cryptography"))
try:
    from openjpeg.utils import get_openjpeg_version
    found.append(("OpenJPEG", ".".join(map(str, get_openjpeg_version())),
                  "of pylibjpeg-openjpeg: JPEG 2000, HTJ2K"))
except ImportError:
    pass
files = sorted(
    {str(f.locate()) for d in metadata.distributions() for f in d.files or ()
     if ".so" in f.name and (
         ".libs" in str(f.parent) or d.name.startswith(("pyjpegls", "pylibjpeg")))}
)
print(json.dumps({"found": found, "files": files}))
"""


def main() -> int:
    """Write the file and return 0, or say what is wrong with it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    bill = packages_of(options.python)
    bill["components"] += natives_of(options.python)
    text = json.dumps(bill, indent=1)
    wrong = what_is_wrong_with(text)
    if wrong:
        print(f"{options.file}: {wrong}", file=sys.stderr)
        return 1
    options.file.write_text(text)
    print(f"{options.file}: {len(bill['components'])} components")
    return 0


def packages_of(python: str) -> dict[str, Any]:
    """Return the bill of what is installed for ``python``."""
    project = Path(__file__).resolve().parent.parent / "pyproject.toml"
    done = subprocess.run(  # noqa: S603
        [
            *(sys.executable, "-m", "cyclonedx_py", "environment", python),
            *("--spec-version", "1.6", "--pyproject", str(project)),
            *("--output-reproducible", "--output-format", "JSON"),
        ],
        capture_output=True,
        check=True,
    )
    bill: dict[str, Any] = json.loads(done.stdout)
    return bill


def natives_of(python: str) -> list[dict[str, Any]]:
    """Return what lies below the packages."""
    done = subprocess.run([python, "-c", ASKED], capture_output=True, check=True)  # noqa: S603
    asked = json.loads(done.stdout)
    natives = [
        {
            "type": "library",
            "bom-ref": f"native:{name}@{version} ({about})",
            "name": name,
            "version": version,
            "description": about,
            "purl": f"pkg:generic/{name.lower()}@{version}",
        }
        for name, version, about in asked["found"]
    ]
    for file in map(Path, asked["files"]):
        where = f"{file.parent.name}/{file.name}"
        natives.append(
            {
                "type": "file",
                "bom-ref": f"file:{where}",
                "name": where,
                "hashes": [{"alg": "SHA-256", "content": digest_of(file)}],
            }
        )
    return natives


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def what_is_wrong_with(text: str) -> str:
    """Return what the schema has against a bill; empty if it fits."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    return "" if wrong is None else str(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
