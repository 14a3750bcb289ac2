"""What lies in deploy/ says what it is meant to say, as far as is seen unrun.

No container is built here. The chart is linted where helm is installed; its templates are
filled in by the few rules that they use, which shows that YAML comes out and what stands
in it, and not that a cluster takes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dicom_node.config_file import load
from dicom_node.orthanc_settings import Role, read_settings

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def needing(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"left out: {program} is not installed")
    return found


class TestSystemd:
    def test_the_unit_is_exposed_little(self) -> None:
        done = subprocess.run(
            [
                *(needing("systemd-analyze"), "security", "--offline=true"),
                *("--no-pager", "--threshold=20", DEPLOY / "miadmark.service"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-400:]
        assert "Overall exposure level" in done.stdout

    @pytest.mark.skipif(os.geteuid() != 0, reason="left out: only root makes users")
    def test_users_and_folders_are_made(self, tmp_path: Path) -> None:
        (tmp_path / "etc").mkdir()
        for program, file, more in (
            ("systemd-sysusers", "miadmark.sysusers", []),
            ("systemd-tmpfiles", "miadmark.tmpfiles", ["--create"]),
        ):
            done = subprocess.run(
                [needing(program), f"--root={tmp_path}", *more, DEPLOY / file],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
        assert "miadmark-hatch" in (tmp_path / "etc" / "group").read_text()
        for folder, mode in (
            ("etc/miadmark", 0o750),
            ("var/lib/miadmark", 0o700),
            ("var/lib/miadmark-hatch", 0o2770),
            ("var/lib/miadmark-hatch/refused", 0o700),
        ):
            assert (tmp_path / folder).stat().st_mode & 0o7777 == mode


def test_the_section_for_orthanc_is_taken() -> None:
    lines = (DEPLOY / "orthanc.json").read_text().splitlines()
    said = "\n".join(line for line in lines if not line.lstrip().startswith("//"))
    assert read_settings(said).role is Role.EGRESS


def test_the_configuration_is_taken() -> None:
    assert load(DEPLOY / "node.toml").routes


def test_no_container_has_privileges() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert services["node"]["read_only"] is True


class TestChart:
    VALUES: dict[str, Any] = yaml.safe_load(
        (DEPLOY / "chart" / "values.yaml").read_text()
    )

    def test_helm_has_nothing_against_it(self) -> None:
        done = subprocess.run(
            [needing("helm"), "lint", "--strict", DEPLOY / "chart"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout

    @pytest.mark.parametrize(
        "more",
        [
            {},
            {"certificates": "tls", "allowedFrom": [{"ipBlock": {"cidr": "::1/128"}}]},
        ],
    )
    def test_what_comes_out_has_no_privileges(self, more: dict[str, Any]) -> None:
        made = {one["kind"]: one for one in filled_in(self.VALUES | more)}
        pod = made["StatefulSet"]["spec"]["template"]["spec"]
        (node,) = pod["containers"]
        assert made["StatefulSet"]["spec"]["replicas"] == 1
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        assert node["securityContext"] == {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
        mounted = {mount["name"] for mount in node["volumeMounts"]}
        claimed = made["StatefulSet"]["spec"]["volumeClaimTemplates"]
        there = {volume["name"] for volume in pod["volumes"]}
        assert mounted == there | {claim["metadata"]["name"] for claim in claimed}
        assert made["ConfigMap"]["data"]["node.toml"] == self.VALUES["config"]
        assert bool(made["NetworkPolicy"]["spec"]["ingress"]) == bool(more)
        assert len(pod["volumes"][0]["projected"]["sources"]) == 1 + bool(more)

    def test_the_node_can_start_and_is_asked_where_it_answers(
        self, tmp_path: Path
    ) -> None:
        made = {one["kind"]: one for one in filled_in(self.VALUES)}
        path = tmp_path / "node.toml"
        path.write_text(made["ConfigMap"]["data"]["node.toml"], "utf-8")
        config = load(path)
        (node,) = made["StatefulSet"]["spec"]["template"]["spec"]["containers"]
        (volume,) = (
            m["mountPath"] for m in node["volumeMounts"] if m["name"] == "state"
        )
        # A volume belongs to root: only what is below it can be the node's own.
        assert Path(volume) in config.node.state.parents
        assert config.metrics is not None
        ports = {port["name"]: port["containerPort"] for port in node["ports"]}
        assert ports == {
            "dicom": config.listeners[0].port,
            "metrics": config.metrics.port,
        }
        # The kubelet comes from outside.
        assert {config.listeners[0].bind, config.metrics.bind} == {"0.0.0.0"}  # noqa: S104
        asked = {name: node[f"{name}Probe"]["httpGet"]["path"] for name in PROBES}
        assert asked == PROBES

    def test_the_page_has_a_port_where_it_is_wanted(self) -> None:
        service = self.VALUES["service"] | {"webPort": 11181}
        watched = [{"ipBlock": {"cidr": "::1/128"}}]
        made = filled_in(self.VALUES | {"service": service, "watchedFrom": watched})
        found = {one["kind"]: one["spec"] for one in made if "spec" in one}
        assert 11181 in [port["port"] for port in found["Service"]["ports"]]
        ((rule),) = found["NetworkPolicy"]["ingress"]
        assert rule["ports"] == [{"port": 11180}, {"port": 11181}]


PROBES = {"startup": "/health", "readiness": "/ready", "liveness": "/health"}


def test_all_that_is_installed_has_the_page() -> None:
    for file in ("Dockerfile", "wheelhouse.sh", "release.md"):
        named = re.findall(r"\bcodecs,desk,hsm[a-z,]*", (DEPLOY / file).read_text())
        assert named
        assert all("web" in extras.split(",") for extras in named), file


@pytest.fixture
def open_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="left out: only root becomes another")
def test_a_volume_of_roots_is_refused_and_a_folder_below_it_is_taken(
    open_folder: Path,
) -> None:
    volume = open_folder / "volume"
    volume.mkdir()
    os.chown(volume, 0, 10001)
    volume.chmod(0o2775)
    opening = (
        "import os, sys, pathlib\n"
        "import dicom_node.queue.sqlite\n"
        "from dicom_node.state import State\n"
        "os.setgroups([10001]); os.setgid(10001); os.setuid(10001)\n"
        "State(pathlib.Path(sys.argv[1])).queue().close()\n"
    )

    def opened(folder: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", opening, str(folder)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert "ConfigError" in opened(volume).stderr
    done = opened(volume / "state")
    assert done.returncode == 0, done.stderr
    assert (volume / "state").stat().st_mode & 0o777 == 0o700


def filled_in(values: dict[str, Any]) -> list[Any]:  # noqa: C901 - a small interpreter
    """Fill in the templates, by the rules that they use and no others."""
    names = {"Values": values, "Release": {"Name": "r"}, "Chart": {"Name": "miadmark"}}

    def value_of(path: str) -> Any:
        found: Any = names
        for part in path.strip(".").split("."):
            found = found[part]
        return found

    def written(match: re.Match[str]) -> str:
        path, _, how = match[1].partition("|")
        value = value_of(path.strip())
        if how.strip() == "toJson":
            return json.dumps(value)
        if how.strip() == "sha256sum":
            return hashlib.sha256(value.encode()).hexdigest()
        assert not how
        return str(value)

    made = []
    for template in sorted((DEPLOY / "chart" / "templates").glob("*.yaml")):
        lines, shown = [], [True]
        for line in template.read_text().splitlines():
            order = re.fullmatch(r"\s*\{\{- (if|else|end)\s*(\S*) ?\}\}", line)
            if order is None:
                if all(shown):
                    lines.append(re.sub(r"\{\{ (.+?) \}\}", written, line))
            elif order[1] == "if":
                shown.append(bool(value_of(order[2])))
            elif order[1] == "else":
                shown[-1] = not shown[-1]
            else:
                shown.pop()
        made += list(yaml.safe_load_all("\n".join(lines)))
    return made


def test_the_bill_of_materials_has_the_native_libraries() -> None:
    sbom = runpy.run_path(str(DEPLOY / "sbom.py"))
    natives = sbom["natives_of"](sys.executable)
    named = [one["name"] for one in natives]
    assert named.count("OpenSSL") == 2  # Python's, and cryptography's own
    assert {"CPython", "SQLite", "OpenJPEG"} <= set(named)
    # One is enough to see that the schema is asked, which takes its time.
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "components": [natives[0] | {"type": "nonsense"}],
    }
    assert "nonsense" in sbom["what_is_wrong_with"](json.dumps(bill))
