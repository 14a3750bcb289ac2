"""``serve``: the node, until it is told to stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node import log

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from dicom_node.config import Config


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    command = commands.add_parser("serve", help="run the node")
    command.add_argument("--config", type=Path, required=True, metavar="FILE")
    command.set_defaults(run=_serve)
    add_options(command)


def add_options(command: argparse.ArgumentParser) -> None:
    """Add what ``serve`` is told, and hands down to the processes that it starts."""
    command.add_argument(
        "--log-format",
        type=log.Format,
        choices=list(log.Format),
        help="whatever the configuration says",
    )
    command.add_argument(
        "--ray",
        default="",
        metavar="ADDRESS",
        help="look for marks on this Ray cluster, host:port",
    )


def _serve(options: argparse.Namespace) -> int:
    from dicom_node.config_file import content_of, read
    from dicom_node.node import serve

    log.configure(options.log_format or log.Format.PLAIN)
    content = content_of(options.config)
    config = read(content, options.config)
    log.configure(options.log_format or config.log.format)

    def ready(places: Sequence[str]) -> None:
        for place in places:
            print(f"{config.node.ae_title} listens on {place}", flush=True)  # noqa: T201

    handed_down: list[str] = []
    if options.log_format:
        handed_down += ["--log-format", options.log_format.value]
    if options.ray:
        handed_down += ["--ray", options.ray]
    serve(on_cluster(config, options.ray), options.config, content, ready, handed_down)
    return 0


def on_cluster(config: Config, address: str) -> Config:
    """Return a configuration with what the command line says of a cluster."""
    from dicom_node.config import Cluster

    if not address:
        return config
    if config.cluster is None:
        return replace(config, cluster=Cluster(ray=address))
    return replace(config, cluster=replace(config.cluster, ray=address))
