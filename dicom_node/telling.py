"""Notices handed over: to a mail server, or to a webhook.

A webhook gets JSON and two fields in the head: ``X-Miadmark-Time``, seconds since 1970,
and ``X-Miadmark-Signature``, ``sha256=`` and the HMAC of ``TIME.BODY`` under a secret
that both sides have. Who listens checks it, and that the time is not long ago.
"""

from __future__ import annotations

import hmac
import json
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import TYPE_CHECKING, Final

import urllib3

from dicom_node.addressing import host_and_port
from dicom_node.errors import ConfigError, NodeError
from dicom_node.notifying import Security

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from dicom_node.notices import Notice
    from dicom_node.notifying import Notifying

TIMEOUT_S: Final = 10.0


class NotToldError(NodeError):
    """Passing: a notice was not taken."""


def tell(
    wanted: Notifying, node: str, notices: Sequence[Notice], now: datetime
) -> None:
    """Tell somebody; they have it when this returns.

    Args:
        wanted: Whom, and how.
        node: Who tells.
        notices: What.
        now: Aware.

    Raises:
        NotToldError: It was not taken.
        ConfigError: A secret or a certificate cannot be read.
    """
    try:
        if wanted.smtp:
            _mail(wanted, node, notices, now)
        else:
            _post(wanted, node, notices, now)
    except (OSError, smtplib.SMTPException, urllib3.exceptions.HTTPError) as error:
        raise NotToldError(
            f"notify {wanted.name!r}: {type(error).__name__}: {_reason(error)}",
            hint="It is tried again; what is new meanwhile is told with it.",
        ) from error


def _mail(
    wanted: Notifying, node: str, notices: Sequence[Notice], now: datetime
) -> None:
    mail = EmailMessage()
    topics = ", ".join(dict.fromkeys(notice.topic for notice in notices))
    mail["Subject"] = f"miadmark {node}: {topics}"
    mail["From"], mail["To"] = wanted.sender, ", ".join(wanted.to)
    mail["Date"], mail["Message-ID"] = formatdate(now.timestamp()), make_msgid()
    mail["Auto-Submitted"] = "auto-generated"
    lines = [f"- {notice.says}" for notice in notices]
    mail.set_content("\n".join([f"{node}, {now:%Y-%m-%d %H:%M} UTC", "", *lines, ""]))
    host, port = host_and_port("smtp", wanted.smtp)
    context = _context(wanted.ca)
    if wanted.security is Security.TLS:
        server: smtplib.SMTP = smtplib.SMTP_SSL(
            host, port, timeout=TIMEOUT_S, context=context
        )
    else:
        server = smtplib.SMTP(host, port, timeout=TIMEOUT_S)
    with server:
        if wanted.security is Security.STARTTLS:
            server.starttls(context=context)
        if wanted.user and wanted.password_file is not None:
            server.login(wanted.user, _password(wanted.password_file))
        server.send_message(mail)


def _post(
    wanted: Notifying, node: str, notices: Sequence[Notice], now: datetime
) -> None:
    said = [{"topic": notice.topic, "says": notice.says} for notice in notices]
    body = json.dumps({"node": node, "at": now.isoformat(), "notices": said}).encode()
    assert wanted.secret_file is not None  # the configuration asks for it
    with urllib3.PoolManager(
        ssl_context=_context(wanted.ca), timeout=TIMEOUT_S, retries=False
    ) as pool:
        answer = pool.request(
            "POST",
            wanted.url,
            body=body,
            headers=signed(body, _secret(wanted.secret_file), int(now.timestamp())),
        )
    if not 200 <= answer.status < 300:
        raise OSError(None, f"it answers {answer.status}")


def signed(body: bytes, secret: bytes, time: int) -> dict[str, str]:
    """Return the head of a message to a webhook."""
    mac = hmac.digest(secret, b"%d." % time + body, "sha256").hex()
    return {
        "Content-Type": "application/json",
        "User-Agent": "miadmark",
        "X-Miadmark-Time": str(time),
        "X-Miadmark-Signature": f"sha256={mac}",
    }


def _secret(file: Path) -> bytes:
    try:
        secret = file.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    if not secret:
        raise ConfigError(f"{file} is empty", hint="It is to hold a secret.")
    return secret


def _password(file: Path) -> str:
    """Return what a mail server is told: :mod:`smtplib` can say ASCII only.

    Raises:
        ConfigError: It cannot be read, or said.
    """
    try:
        return _secret(file).decode("ascii")
    except UnicodeDecodeError:
        raise ConfigError(
            f"{file} holds a password with letters beyond ASCII",
            hint="Mail servers are told ASCII only: choose another password.",
        ) from None


def _context(ca: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise ConfigError(f"{ca} cannot be used: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _reason(error: Exception) -> str:
    """Return why; what a mail server answers may be long."""
    strerror = getattr(error, "strerror", None)
    return str(strerror or error)[:200]
