"""AE titles, ports and networks: what may be written for one in a configuration."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

from dicom_node.errors import ConfigError

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network
    from pathlib import Path


def check_ae_title(where: str, title: str) -> None:
    """Return if ``title`` is an AE title.

    Raises:
        ConfigError: It is none (PS3.5 6.2, VR AE).
    """
    if not is_ae_title(title):
        raise ConfigError(
            f"{where}: ae_title {title!r}",
            hint="An AE title has 1 to 16 ASCII characters and no backslash "
            "(PS3.5 6.2).",
        )


def is_ae_title(title: str) -> bool:
    """Say whether ``title`` is an AE title, spaces at its ends left out."""
    return (
        1 <= len(title) <= 16
        and title.isascii()
        and title.isprintable()
        and "\\" not in title
        and title == title.strip()
    )


def check_port(where: str, port: object) -> None:
    """Return if ``port`` is a port, or 0 for any.

    Raises:
        ConfigError: It is none.
    """
    if not isinstance(port, int) or not 0 <= port <= 65535:
        raise ConfigError(f"{where}: port {port!r}", hint="0 to 65535.")


def check_host(where: str, host: str) -> None:
    """Return if ``host`` is an address, or a name that can be asked for.

    Raises:
        ConfigError: It is neither: a part of it is empty or too long.
    """
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise ConfigError(
            f"{where} {host!r}",
            hint="Between the dots of a name stand 1 to 63 characters.",
        ) from error


def host_and_port(where: str, text: str) -> tuple[str, int]:
    """Return what ``host:port`` says; of IPv6, ``[host]:port``.

    Raises:
        ConfigError: It says something else.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ConfigError(f"{where} {text!r}", hint="host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def network(where: str, text: str) -> IPv4Network | IPv6Network:
    """Return the network, or the one address, that ``text`` names.

    Raises:
        ConfigError: It names none.
    """
    try:
        return ip_network(text)
    except ValueError as error:
        raise ConfigError(
            f"{where}: {error}",
            hint='An address or a network: "192.0.2.10", "192.0.2.0/24".',
        ) from error


def address_of(host: str) -> IPv4Address | IPv6Address:
    """Return the address of a peer as a socket names it; IPv4 within IPv6 as IPv4."""
    address = ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped


def is_any(bind: str) -> bool:
    """Say whether what listens on ``bind`` listens on every address."""
    try:
        return address_of(bind).is_unspecified
    except ValueError:
        return False


def is_loopback(bind: str) -> bool:
    """Say whether nobody outside this machine reaches what listens on ``bind``."""
    try:
        return bind == "localhost" or address_of(bind).is_loopback
    except ValueError:
        return False


def check_shown(
    where: str, tls_ca: Path | None, certificate: Path | None, key: Path | None
) -> None:
    """Refuse a certificate to be shown that nobody would see.

    Args:
        where: How errors name the table.
        tls_ca: Certificates that the other's must be signed by; without it, no TLS.
        certificate: What this node shows.
        key: Of it.

    Raises:
        ConfigError: One of the two is missing, or there is no TLS.
    """
    if (certificate is None) != (key is None):
        raise ConfigError(f"{where}: certificate and key go together")
    if certificate is not None and tls_ca is None:
        raise ConfigError(
            f"{where}: a certificate is shown over TLS alone",
            hint="tls_ca: what the other's certificate must be signed by.",
        )
