"""A page to try things on: over real HTTP, with people who may log in."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import urllib3
from urllib3 import BaseHTTPResponse

from dicom_node.config_file import load
from dicom_node.demo.loopback import LOOPBACK, await_that, free_ports
from dicom_node.state import State
from dicom_node.web.people import PEOPLE, People
from dicom_node.web.rights import Role
from dicom_node.web.serving import serve_web
from dicom_node.web.site import Site

PASSWORD: Final = "four words do well"  # noqa: S105 for tests

NAMES: Final[Mapping[str, frozenset[Role]]] = {
    "vera": frozenset({Role.VIEWER}),
    "otto": frozenset({Role.OPERATOR}),
    "olga": frozenset({Role.OFFICER}),
    "oskar": frozenset({Role.OFFICER}),
}

CONFIG: Final = """
[node]
ae_title = "GATEWAY"
port = {dicom}
state = "state"
profile = "fast"

[web]
port = {web}

[[destination]]
name = "research"
ae_title = "RESEARCH"
host = "127.0.0.1"
port = {research}
timeout_s = 5.0

[[destination]]
name = "archive <b>"
ae_title = "ARCHIVE"
host = "127.0.0.1"
port = {archive}

[[route]]
name = "to research, marked"
destination = "research"
action = "mark"
modalities = ["CT", "MR", "CR", "DX"]

[[route]]
name = "to the archive"
destination = "archive <b>"
action = "strip"
called_ae_titles = ["STRIP"]
"""


@dataclass
class Browser:
    """Keeps cookies, follows nothing."""

    origin: str
    cookies: dict[str, str] = field(default_factory=dict)

    def request(
        self,
        method: str,
        path: str,
        body: str | bytes | None = None,
        **headers: str,
    ) -> BaseHTTPResponse:
        jar = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = urllib3.request(
            method,
            self.origin + path,
            body=body,
            headers={"Cookie": jar, **headers},
            redirect=False,
            retries=False,
            timeout=60,
        )
        for line in answer.headers.getlist("set-cookie"):
            name, _, rest = line.partition("=")
            value = rest.partition(";")[0].strip('"')
            self.cookies.pop(name, None)
            if value:
                self.cookies[name] = value
        return answer

    def get(self, path: str, **headers: str) -> BaseHTTPResponse:
        return self.request("GET", path, None, **headers)

    def text(self, path: str) -> str:
        answer = self.get(path)
        assert answer.status == 200, (answer.status, answer.data)
        return answer.data.decode("utf-8")

    def post(self, path: str, **fields: str) -> BaseHTTPResponse:
        kind = "application/x-www-form-urlencoded"
        return self.request("POST", path, urlencode(fields), **{"Content-Type": kind})

    def token(self, path: str = "/") -> str:
        found = re.search(r'name="token" value="([0-9a-f]+)"', self.text(path))
        assert found is not None
        return found.group(1)

    def send(self, path: str, **fields: str) -> BaseHTTPResponse:
        """Post a form as the page has it."""
        return self.post(path, token=self.token(), **fields)


@dataclass
class Page:
    """A page that runs."""

    site: Site
    origin: str
    state: State
    now: list[datetime]

    def browser(self) -> Browser:
        return Browser(self.origin)

    def known(self, name: str) -> Browser:
        """A browser in which somebody has logged in."""
        browser = self.browser()
        answer = browser.post(
            "/login", name=name, password=PASSWORD, token=browser.token("/login")
        )
        assert answer.status == 303, answer.data
        return browser

    def audit(self) -> list[dict[str, object]]:
        return list(self.site.audit.entries())


def written(folder: Path, web: str = "", config: str = CONFIG) -> Path:
    """Write a configuration, its ports free ones, with more of the page's table."""
    names = ("dicom", "web", "research", "archive")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    path = folder / "node.toml"
    whole = config.replace("[web]", f"[web]\n{web}")
    path.write_text(whole.format(**ports), "utf-8")
    return path


@contextmanager
def page(folder: Path, web: str = "") -> Iterator[Page]:
    """Run the page of a node that does not run itself."""
    config = load(written(folder, web))
    assert config.web is not None
    state = State(config.node.state)
    keyring = state.keys()
    state.queue().close()
    people = People(state.folder / PEOPLE)
    now = [datetime.now(UTC)]
    for name, roles in NAMES.items():
        people.put(name, roles, PASSWORD, now[0])
    site = Site(config, config.web, state, keyring, lambda: now[0])
    over = threading.Event()
    thread = threading.Thread(target=serve_web, args=(site, config.web, over.wait))
    thread.start()
    try:
        origin = f"http://{LOOPBACK}:{config.web.port}"
        browser = Browser(origin)

        def answers() -> bool:
            try:
                return browser.get("/login").status == 200
            except urllib3.exceptions.HTTPError:
                return False

        await_that(answers, "the page")
        yield Page(site, origin, state, now)
    finally:
        over.set()
        thread.join()
