"""What a configuration means, and what somebody who reads it should be told. Pure.

A warning is about something that can work and may not be meant: nothing is refused here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicom_node.addressing import is_loopback
from dicom_node.destination import Kind
from dicom_node.routing import Action
from dicom_node.timing import Complete

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dicom_node.config import Config
    from dicom_node.destination import Destination
    from dicom_node.listening import Listening, Peer
    from dicom_node.pool import Pool
    from dicom_node.queueing import Queueing
    from dicom_node.routing import Route


def warnings_of(config: Config) -> list[str]:
    """Return what may not be meant, most serious first."""
    return [
        *_both_ways(config),
        *_without_tls(config),
        *_database(config),
        *_glass(config),
        *_never_taken(config),
        *_twice(config),
        *_unused(config),
    ]


def left_behind(config: Config, owed: Mapping[str, int]) -> list[str]:
    """Return a warning for each route that is gone while something is owed by it.

    Args:
        config: That a node is to go by.
        owed: How many jobs of each route are not settled.
    """
    known = {route.name for route in config.routes}
    return [
        f"route {name!r} is not there, and {count} jobs wait for it: they are held "
        "until it is back, and then: miadmark release"
        for name, count in sorted(owed.items())
        if name not in known
    ]


def listener_line(door: Listening, peers: tuple[Peer, ...]) -> str:
    """Return what a listener means, in a sentence."""
    if door.certificate is None:
        how = "without TLS"
    elif door.asks_for_certificates:
        how = "TLS, of certificates of its client_ca"
        how += ", some revoked" if door.crl else ""
    else:
        how = "TLS, no certificate is asked for"
    who = "peers only" if door.refuses_unknown else "any calling AE title"
    bound = sum(peer.needs_certificate for peer in peers)
    return f"{door.bind}:{door.port}: {how}; {who}; {bound} titles need certificates"


def peer_line(peer: Peer) -> str:
    """Return what a peer means, in a sentence."""
    shows = [
        f"{len(values)} {name}"
        for name, values in (
            ("fingerprints", peer.fingerprints),
            ("names", peer.names),
            ("networks", peer.addresses),
        )
        if values
    ]
    return f"{peer.ae_title}: " + (
        ", ".join(shows) or "nothing that ties it to anybody"
    )


def destination_line(destination: Destination) -> str:
    """Return what a destination means, in a sentence."""
    how = "TLS" if destination.has_tls else "without TLS"
    where = f"{destination.ae_title} at {destination.address}"
    if destination.kind is Kind.STOW:
        shows = ", a token" if destination.token_file else ""
        where = f"{destination.url}{shows}"
    if destination.certificate:
        where += ", a certificate of ours"
    promise = ", asked to keep what it gets" if destination.commitment else ""
    return f"{destination.name}: {where}, {how}{promise}"


def queue_line(queue: Queueing) -> str:
    """Return where the queue and the ledger are, in a sentence."""
    how = "TLS, and its name is checked" if queue.is_protected else "not checked by TLS"
    how = "on this machine" if queue.is_here else how
    which = "one node's" if queue.shared is None else f"of all nodes of {queue.shared}"
    return f"{queue.told}: {how}; {which}"


def pool_line(pool: Pool) -> str:
    """Return what a pool means, in a sentence."""
    return f"{pool.name}: {pool.choose.value} of {', '.join(pool.members)}"


def route_line(route: Route) -> str:
    """Return what a route means, in a sentence."""
    conditions = [
        f"{name} {' or '.join(wanted)}"
        for name, wanted in (
            ("from", route.calling_ae_titles),
            ("to", route.called_ae_titles),
            ("of modality", route.modalities),
            ("of class", route.sop_classes),
            *((condition.attribute, condition.patterns) for condition in route.where),
        )
        if wanted
    ]
    what = "; ".join(conditions) or "everything"
    to = " and ".join(route.destinations)
    how = [
        text
        for text, is_so in (
            ("held", route.hold),
            (f"at {', '.join(route.hours)} ({route.timezone})", bool(route.hours)),
            (f"study: {route.study.value}", route.study is not Complete.IMMEDIATE),
        )
        if is_so
    ]
    return f"{route.name}: {', '.join([route.action.value, *how])}, to {to}: {what}"


def covers(wide: Route, narrow: Route) -> bool:
    """Say whether a route takes everything that another takes, as far as can be told."""
    lists = (
        (wide.calling_ae_titles, narrow.calling_ae_titles),
        (wide.called_ae_titles, narrow.called_ae_titles),
        (wide.modalities, narrow.modalities),
        (wide.sop_classes, narrow.sop_classes),
    )
    return all(
        not outer or (bool(inner) and set(inner) <= set(outer))
        for outer, inner in lists
    ) and set(wide.where) <= set(narrow.where)


def may_meet(one: Route, other: Route) -> bool:
    """Say whether some instance may take both routes."""
    lists = (
        (one.calling_ae_titles, other.calling_ae_titles),
        (one.called_ae_titles, other.called_ae_titles),
        (one.modalities, other.modalities),
        (one.sop_classes, other.sop_classes),
    )
    return all(not a or not b or not set(a).isdisjoint(b) for a, b in lists)


def reached(config: Config, route: Route) -> list[str]:
    """Return the destinations that a route may lead to, pools taken apart."""
    found = (one for to in route.destinations for one in config.members(to))
    return list(dict.fromkeys(one.name for one in found))


def _pairs(config: Config) -> Iterator[tuple[Route, Route, str]]:
    """Yield each two routes with a destination in common, and that."""
    for number, one in enumerate(config.routes):
        for other in config.routes[number + 1 :]:
            for name in reached(config, one):
                if name in reached(config, other):
                    yield one, other, name


def _both_ways(config: Config) -> Iterator[str]:
    for one, other, destination in _pairs(config):
        actions = {one.action, other.action}
        if actions == {Action.MARK, Action.PASS} and may_meet(one, other):
            yield (
                f"routes {one.name!r} and {other.name!r} may send the same instance to "
                f"{destination!r}, marked and as it came: that gives the mark away"
            )


def _without_tls(config: Config) -> Iterator[str]:
    open_ones = {one.name for one in config.destinations if not one.has_tls}
    originals = [route for route in config.routes if route.action is Action.STRIP]
    for route in originals:
        for name in sorted(open_ones.intersection(reached(config, route))):
            yield (
                f"route {route.name!r} sends originals to {name!r} "
                + (
                    "without TLS, to whoever answers there"
                    if route.insecure
                    else "without TLS: it will release none (tls_ca, or insecure = true)"
                )
            )
    for one in config.destinations:
        if not one.has_tls and not is_loopback(
            one.host or one.url_parts.hostname or ""
        ):
            yield f"destination {one.name!r} is reached without TLS"
    for door in config.listeners:
        if door.certificate is None and not is_loopback(door.bind):
            yield f"listener {door.bind}:{door.port} has no TLS"
        elif not door.refuses_unknown and not is_loopback(door.bind):
            where = f"listener {door.bind}:{door.port}"
            yield f"{where} takes in what any AE title sends"


def _database(config: Config) -> Iterator[str]:
    if not config.queue.is_protected:
        yield (
            "queue: whoever is on the way to the database can read along or answer for "
            "it: sslmode=verify-full, and sslrootcert"
        )


def _glass(config: Config) -> Iterator[str]:
    if config.break_glass.allowed and not config.break_glass.names:
        yield "whoever can run the command may have instances leave unmarked: break_glass"


def _never_taken(config: Config) -> Iterator[str]:
    if not all(door.refuses_unknown for door in config.listeners):
        return
    known = {peer.ae_title for peer in config.peers}
    for route in config.routes:
        wanted = set(route.calling_ae_titles)
        if wanted and wanted.isdisjoint(known):
            yield (
                f"route {route.name!r} is for AE titles that no [[peer]] has, and every "
                "listener refuses those"
            )
    if not known:
        yield "every listener refuses AE titles without a [[peer]], and there is none"


def _twice(config: Config) -> Iterator[str]:
    for one, other, destination in _pairs(config):
        if one.action is not other.action:
            continue
        for wide, narrow in ((one, other), (other, one)):
            if covers(wide, narrow):
                yield (
                    f"route {narrow.name!r} is shadowed: what takes it takes "
                    f"{wide.name!r} too, and goes to {destination!r} twice"
                )
                break


def _unused(config: Config) -> Iterator[str]:
    used = {name for route in config.routes for name in reached(config, route)}
    for one in config.destinations:
        if one.name not in used:
            yield f"destination {one.name!r} is used by no route"
    named = {name for route in config.routes for name in route.destinations}
    for pool in config.pools:
        if pool.name not in named:
            yield f"pool {pool.name!r} is used by no route"
    if not config.routes:
        yield "there is no route: everything is refused with 0x0124"
