"""What arguments mean that many commands have: said once, for the help of each.

A command that says more of its own argument is not overruled.
"""

from __future__ import annotations

from typing import Final

MEANINGS: Final = {
    "--address": "where it asks from, where it has no certificate",
    "--ae-title": "of the receiver",
    "--accept-renamed": "also objects that an archive has renamed",
    "--approvers": "how many",
    "--by": "who orders it",
    "--ca": "what its certificate is signed by, PEM",
    "--certificate": "PEM",
    "--config": "the configuration of the node, TOML",
    "--data": "the pictures: a folder for each set",
    "--days": "how long it holds (%(default)s)",
    "--desk-ca": "what the desk's certificate is signed by, PEM",
    "--desk-certificate": "what this site shows to the desk, PEM",
    "--desk-key": "of that certificate, PEM, not encrypted",
    "--insecure-route": "as if its route said insecure = true",
    "--key": "of that certificate, PEM, not encrypted",
    "--least-suite": "refuse records of lower ones",
    "--log-format": "whatever the configuration says",
    "--network": "one of them; several times for several",
    "--out": "where the result goes; made if it is not there",
    "--passphrase-file": "the passphrase",
    "--picture": "where the drawing goes (%(default)s)",
    "--pin-file": "the PIN of the token",
    "--purpose": "what for",
    "--release": "how it would be handed out (%(default)s)",
    "--receipt": "for the node that gave it: where it is written",
    "--rounds": "how many (%(default)s)",
    "--set": "one of them; several times for several",
    "--shares": "how many (%(default)s)",
    "--site": "its public half",
    "--sop-class": "only of this class",
    "--state": "keys and ledger",
    "--study": "only of this study",
    "--token-file": "what opens the transit service",
    "--transit-ca": "what that service's certificate is signed by, PEM",
    "--transit-key": "its name there (%(default)s)",
    "--transit-mount": "where the engine is mounted there (%(default)s)",
    "backup": "what miadmark state backup has made",
    "file": "the site file",
    "folder": "what was packed",
    "id": "number of the grant",
    "job": "numbers of jobs, as miadmark status has them",
    "kind": "of what",
    "name": "as it is called",
    "path": "the file",
    "paths": "files and folders",
    "receipt": "of the other node",
    "shell": "which one",
    "target": "a new folder",
    "what": "what is timed",
}
"""By option, or by the name of what stands without one."""
