"""The page: who sees what, who does what, and what strangers get."""

from __future__ import annotations

import itertools
import re
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from starlette.routing import Route

from dicom_node.audit import Event
from dicom_node.demo.loopback import make_certificate
from dicom_node.grants import fingerprint
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.history import Search
from dicom_node.queue.job import JobState
from dicom_node.web import pictures
from dicom_node.web.guarded import Guarded
from dicom_node.web.pages import page_of
from dicom_node.web.people import PEOPLE, People
from dicom_node.web.rights import Right, Role
from tests.pages import NAMES, PASSWORD, Browser, Page, page

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RESEARCH = Owed("to research, marked", "research")
EVIL = '<script>alert("x")</script>'


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with page(tmp_path_factory.mktemp("page")) as made:
        yield made


numbers = itertools.count(1)


def a_job(page: Page, state: JobState = JobState.HELD, calling: str = "CT1") -> int:
    """Put a job into the queue, and return its number."""
    number = next(numbers)
    with page.site.queue() as queue:
        arrival = Arrival(
            f"1.2.{number}", number.to_bytes(32, "big"), f"{number}.dcm", "1.9", calling
        )
        queue.add(arrival, [RESEARCH], NOON)
        if state is not JobState.WAITING:
            job = queue.claim(NOON, timedelta(minutes=1))
            assert job is not None
            queue.hold(job, f"it said no, and {EVIL}")
    with page.site.history() as history:
        return history.found(Search(), 1)[0].id


def guarded(page: Page) -> list[Guarded]:
    """Every view that is on the page, as the application itself has it."""
    found = []
    for route in page_of(page.site).routes:
        assert isinstance(route, Route), route
        found.append(route.app.guarded)  # type: ignore[attr-defined]
    return found


def a_path(one: Guarded) -> str:
    path = one.path.replace("{name}", "ct").replace("{which}", "marked")
    return path.replace("{number}", "1").replace("{uid}", "1.2")


PUBLIC = {
    ("GET", "/static/{name}"),
    ("GET", "/login"),
    ("POST", "/login"),
    ("POST", "/logout"),
    ("GET", "/login/oidc"),
    ("GET", "/login/oidc/back"),
}


def test_every_view_asks_who_is_there(running: Page) -> None:
    views = guarded(running)
    assert len(views) > 25
    for one in views:
        is_public = (one.method, one.path) in PUBLIC
        assert (one.right is None) == is_public, one
        if is_public:
            continue
        answer = running.browser().request(one.method, a_path(one))
        if one.method == "GET":
            assert answer.status == 303
            assert answer.headers["location"].startswith("/login?to=/")
        else:
            assert answer.status == 401


ALLOWED = {
    "vera": {Right.LOOK},
    "otto": {Right.LOOK, Right.ACT},
    "olga": {Right.LOOK, Right.ORIGINALS, Right.DECIDE},
}


@pytest.mark.parametrize("name", ALLOWED)
def test_roles_have_their_rights_and_no_others(running: Page, name: str) -> None:
    browser = running.known(name)
    for one in guarded(running):
        if one.right is None or one.path.startswith("/samples/"):
            continue
        answer = browser.request(one.method, a_path(one))
        if one.right in ALLOWED[name]:
            assert answer.status != 403 or b"form is not of this page" in answer.data
            assert answer.status not in {303, 401, 500}, (one, answer.data)
        else:
            assert answer.status == 403, one
            assert b"which you do not have" in answer.data
    refused = [e for e in running.audit() if e.get("did") == "refused"]
    assert any(entry["by"] == name for entry in refused)


def test_no_form_of_another_page_does_anything(running: Page) -> None:
    browsers = {Right.ACT: running.known("otto"), Right.DECIDE: running.known("olga")}
    for one in guarded(running):
        if one.method != "POST" or one.right is None:
            continue
        browser = browsers[one.right]
        other = running.known("otto").token()
        own = browser.token()
        for fields, headers in (
            ({}, {}),
            ({"token": ""}, {}),
            ({"token": other}, {}),
            ({"token": own}, {"Origin": "http://evil.example"}),
            ({"token": own}, {"Origin": "null"}),
        ):
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            body = "&".join(f"{k}={v}" for k, v in fields.items())
            answer = browser.request("POST", a_path(one), body, **kind, **headers)
            assert answer.status == 403, (one, fields, headers)
    stranger = running.browser()
    stranger.get("/login")
    assert stranger.post("/login", name="vera", password=PASSWORD).status == 403


def test_every_answer_says_what_browsers_may_not_do(running: Page) -> None:
    for path in ("/login", "/", "/nothing", "/static/style.css", "/static/x"):
        headers = running.browser().get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert "server" not in headers
    assert running.browser().get("/login").headers["cache-control"] == "no-store"
    cookie = running.browser().get("/login").headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_a_page_called_by_another_name_is_not_ours(running: Page) -> None:
    answer = running.browser().get("/login", Host="evil.example")
    assert answer.status == 400


def test_what_came_in_is_shown_as_text(running: Page) -> None:
    number = a_job(running, calling='"><img src=x>')
    browser = running.known("vera")
    for path in ("/", "/jobs", f"/jobs/{number}", "/studies/1.9", "/peers"):
        text = browser.text(path)
        assert EVIL not in text
        assert "<img src=x>" not in text
        assert "<b>" not in text
    assert "&lt;script&gt;" in browser.text("/jobs")
    assert "archive &lt;b&gt;" in browser.text("/peers")
    query = "/jobs?uid=%22%3E%3Cscript%3E&ae=%27%20OR%201=1&route=%3Cb%3E&done=%3Ci%3E"
    assert "<script>alert" not in browser.text(query)
    assert "<i>" not in browser.text(query)


@pytest.mark.parametrize(
    "path",
    [
        "/static/..%2f..%2faudit.py",
        "/static/../site.py",
        "/static/style.css%00",
        "/samples/..%2f..%2f..%2fetc%2fpasswd",
        "/samples/%2e%2e/marked.png",
        "/jobs/..%2f1/marked.png",
        "/jobs/1/..%2fmarked.png",
        "/studies/..%2f..",
    ],
)
def test_no_path_leads_out(running: Page, path: str) -> None:
    answer = running.known("olga").get(path)
    assert answer.status in {400, 404}
    assert b"root:" not in answer.data
    assert b"import" not in answer.data


def test_after_logging_in_one_gets_to_where_one_wanted(running: Page) -> None:
    for wanted, gets in (
        ("/jobs", "/jobs"),
        ("//evil.example", "/"),
        ("https://evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/login", "/"),
    ):
        browser = running.browser()
        answer = browser.post(
            "/login",
            name="vera",
            password=PASSWORD,
            token=browser.token("/login"),
            to=wanted,
        )
        assert answer.headers["location"] == gets


def test_who_is_wrong_again_and_again_has_to_wait(tmp_path: Path) -> None:
    with page(tmp_path) as made:
        browser = made.browser()
        token = browser.token("/login")

        def tried(name: str, password: str) -> int:
            return browser.post(
                "/login", name=name, password=password, token=token
            ).status

        assert [tried("vera", f"wrong {n}") for n in range(5)] == [403] * 5
        assert tried("vera", PASSWORD) == 429
        assert tried("otto", PASSWORD) == 303  # others are not kept out
        made.now[0] += timedelta(seconds=16)
        browser.cookies.clear()
        token = browser.token("/login")
        assert tried("vera", PASSWORD) == 303
        refused = [e for e in made.audit() if e.get("did") == "refused"]
        assert [entry["by"] for entry in refused] == ["vera"] * 5


def test_who_tries_many_at_once_gets_no_more_of_them(tmp_path: Path) -> None:
    with page(tmp_path) as made:
        browser = made.browser()
        token = browser.token("/login")

        def tried(number: int) -> int:
            own = Browser(made.origin, dict(browser.cookies))
            wrong = f"wrong, wrong {number}"
            return own.post("/login", name="otto", password=wrong, token=token).status

        with ThreadPoolExecutor(20) as pool:
            statuses = list(pool.map(tried, range(20)))
        assert statuses.count(403) == 5
        assert statuses.count(429) == 15


@pytest.mark.parametrize("is_named", [True, False])
def test_a_proxy_is_nobody(tmp_path: Path, *, is_named: bool) -> None:
    with page(tmp_path, web='proxies = ["127.0.0.1"]' if is_named else "") as made:
        browser = made.browser()
        token = browser.token("/login")
        kind = {"Content-Type": "application/x-www-form-urlencoded"}

        def tried(name: str, address: str) -> int:
            wrong = f"name={name}&password=wrong&token={token}"
            forwarded = {"X-Forwarded-For": f"198.51.100.9, {address}"}
            return browser.request("POST", "/login", wrong, **kind, **forwarded).status

        tries = [tried(f"stranger{n}", "192.0.2.1") for n in range(31)]
        assert tries == [403] * 30 + [429 if is_named else 403]
        assert tried("otto", "192.0.2.2") == 403
        assert made.known("olga").get("/").status == 200
        refused = [e["address"] for e in made.audit() if e.get("did") == "refused"]
        assert refused[-1] == ("192.0.2.2" if is_named else "127.0.0.1")


def test_sessions_end(tmp_path: Path) -> None:
    with page(tmp_path) as made:
        people = People(made.state.folder / PEOPLE)
        idle, busy = made.known("vera"), made.known("vera")
        left, changed, kept = made.known("vera"), made.known("otto"), made.known("vera")
        taken = dict(left.cookies)
        left.send("/logout")
        left.cookies = taken
        assert left.get("/").status == 303  # its cookie is good for nothing any more
        made.now[0] += timedelta(minutes=10)
        assert changed.get("/").status == 200
        people.put("otto", {Role.OPERATOR}, "another four words", made.now[0])
        assert changed.get("/").status == 303
        assert busy.get("/").status == kept.get("/").status == 200
        made.now[0] += timedelta(minutes=10)
        assert idle.get("/").status == 303
        token = idle.token("/login")  # in the same browser, its old cookie still there
        again = idle.post("/login", name="vera", password=PASSWORD, token=token)
        assert again.status == 303
        assert idle.get("/").status == 200
        assert busy.get("/").status == 200
        for _ in range(60):
            made.now[0] += timedelta(minutes=10)
            last = kept.get("/").status
        assert last == 303  # ten hours, whatever happens
        people.remove("vera")
        forged = made.known("olga")
        name, value = next(iter(forged.cookies.items()))
        body, _, mac = value.partition(".")
        for other in (
            f"{body}x.{mac}",
            f"{body}.{mac[:-1]}{'01'[mac[-1] == '0']}",
            f"{body}.",
            "",
            "x" * 9999,
        ):
            forged.cookies[name] = other
            assert forged.get("/").status == 303


def test_a_held_job_is_released_and_given_up_by_whoever_may(running: Page) -> None:
    first, second = a_job(running), a_job(running)
    viewer, operator = running.known("vera"), running.known("otto")
    assert "Try job" not in viewer.text(f"/jobs/{first}")
    assert viewer.post(f"/jobs/{first}/release", token=viewer.token()).status == 403
    answer = operator.send(f"/jobs/{first}/release")
    assert answer.status == 303
    assert operator.send(f"/jobs/{first}/release").status == 400  # it waits now
    assert operator.send(f"/jobs/{second}/discard").status == 400  # is he sure?
    assert operator.send(f"/jobs/{second}/discard", sure="yes").status == 303
    with running.site.history() as history:
        states = [job.state for n in (first, second) if (job := history.job(n))]
    assert states == [JobState.WAITING, JobState.DROPPED]
    told = {tuple(map(e.get, ("event", "did", "job", "by"))) for e in running.audit()}
    assert ("acted", "released", first, "otto") in told
    assert ("dropped", "discarded", second, "otto") in told
    assert "released" in operator.text(f"/jobs/{first}")


def test_a_route_is_held_and_goes_on(running: Page) -> None:
    operator = running.known("otto")
    name = "to research, marked"
    assert operator.send("/routes/hold", route=name).status == 400  # why?
    assert operator.send("/routes/hold", route="no such", why="x").status == 400
    assert operator.send("/routes/hold", route=name, why="a recall").status == 303
    assert "by otto" in operator.text("/routes")
    with running.site.queue() as queue:
        assert [held.route for held in queue.held_routes()] == [name]
    assert operator.send("/routes/release", route=name).status == 303
    assert operator.send("/routes/release", route=name).status == 400
    did = [e["did"] for e in running.audit() if e["event"] == "route"]
    assert did[-3:] == ["held", "released", "released"]


def test_a_file_is_explained_and_not_kept(running: Page, images: Path) -> None:
    operator = running.known("otto")
    before = {p for p in running.state.folder.rglob("*") if p.suffix == ".dcm"}
    token, line = operator.token(), "\r\n"
    boundary = "xxboundaryxx"
    fields = {"token": token, "called": "STRIP", "calling": "X"}
    parts = [
        f'Content-Disposition: form-data; name="{name}"{line * 2}{value}{line}'.encode()
        for name, value in fields.items()
    ]
    head = f'Content-Disposition: form-data; name="file"; filename="x"{line * 2}'
    parts.append(head.encode() + (images / "report-sr.dcm").read_bytes() + b"\r\n")
    body = b"".join(f"--{boundary}{line}".encode() + part for part in parts)
    body += f"--{boundary}--{line}".encode()
    kind = f"multipart/form-data; boundary={boundary}"
    answer = operator.request("POST", "/routes/explain", body, **{"Content-Type": kind})
    text = answer.data.decode("utf-8")
    assert answer.status == 200
    assert "Modality is &#39;SR&#39;" in text
    assert ">taken<" in text
    after = {p for p in running.state.folder.rglob("*") if p.suffix == ".dcm"}
    assert after == before
    assert not list((running.state.folder / "spool").rglob("*tmp*"))


def test_a_grant_takes_two_people(running: Page, tmp_path: Path) -> None:
    olga, oskar = running.known("olga"), running.known("oskar")
    certificate = make_certificate(tmp_path, "partner")
    pem = (tmp_path / "partner-cert.pem").read_text("ascii")
    values = {"ae_titles": "PARTNER", "purpose": "research", "days": "30"}
    assert olga.send("/grants/propose", **values, certificate="nonsense").status == 400
    assert olga.send("/grants/propose", **values, certificate=pem).status == 303
    text = olga.text("/grants")
    assert fingerprint(certificate) in text
    assert "waits for approval" in text
    assert "Approve grant" not in text  # not by herself
    (number,) = re.findall(r"Grant (\d+): PARTNER", text)
    answer = olga.send(f"/grants/{number}/approve")
    assert answer.status == 400
    assert b"agrees to grant" in answer.data
    assert oskar.send(f"/grants/{number}/approve").status == 303
    assert "in force until" in olga.text("/grants")
    assert olga.send(f"/grants/{number}/revoke").status == 303
    assert "revoked by olga" in oskar.text("/grants")
    did = [(e["did"], e["by"]) for e in running.audit() if e["event"] == "grant"]
    assert did == [("proposed", "olga"), ("approved", "oskar"), ("revoked", "olga")]


def test_keys_are_named_and_nothing_secret_is(running: Page) -> None:
    text = running.known("olga").text("/keys")
    assert running.site.keyring.site("").fingerprint in text
    secret = (running.state.folder / "keys" / "passphrase").read_text("utf-8").strip()
    assert secret not in text


def test_the_audit_is_verified_each_time(tmp_path: Path) -> None:
    with page(tmp_path) as made:
        olga = made.known("olga")
        assert "are as they were written" in olga.text("/audit")
        assert "logged in" in olga.text("/audit?event=access&text=olga")
        log = made.state.folder / "audit.jsonl"
        lines = log.read_bytes().splitlines(keepends=True)
        lines[1] = lines[1].replace(b'"read"', b'"dead"')
        log.write_bytes(b"".join(lines))
        assert "is not whole: entry 2 of" in olga.text("/audit?event=access")
        assert "is not whole: entry 2 of" in olga.text("/audit?whole=yes")


def test_the_audit_shows_what_nobody_did(tmp_path: Path) -> None:
    with page(tmp_path) as made:
        made.site.audit.add(Event.RECEIVED, peer="CT1", study="1.2.3", instances=3)
        made.site.audit.add(Event.SENT, peer="RESEARCH", study="1.2.3", instances=3)
        made.site.audit.add(Event.CHECKPOINT, checkpoint="a signature")
        olga = made.known("olga")
        assert "1.2.3" in olga.text("/audit?event=received")
        assert "a signature" in olga.text("/audit")


def test_who_cannot_be_written_down_sees_nothing(tmp_path: Path) -> None:
    with page(tmp_path) as made:
        number = a_job(made)
        browser = made.known("vera")
        assert browser.get(f"/jobs/{number}").status == 200
        log = made.state.folder / "audit.jsonl"
        log.unlink()
        log.mkdir()
        for path in (f"/jobs/{number}", "/studies/1.9", f"/jobs/{number}/pictures"):
            answer = browser.get(path)
            assert answer.status in {500, 503}, path
            assert b"1.9" not in answer.data.replace(b"/studies/1.9", b"")


def test_an_object_too_large_is_not_read(
    running: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = a_job(running)
    with running.site.history() as history:
        job = history.job(number)
    assert job is not None
    assert job.file is not None
    running.state.spool().path(job.file).write_bytes(b"x" * 100)
    monkeypatch.setattr(pictures, "LARGEST", 99)
    monkeypatch.setattr(pictures, "OpenInstance", None)
    answer = running.known("olga").get(f"/jobs/{number}/pictures")
    assert answer.status == 400
    assert b"too large" in answer.data


def test_a_destination_is_asked(running: Page) -> None:
    operator = running.known("otto")
    answer = operator.send("/peers/echo", destination="research")
    assert answer.status == 400
    assert b"research" in answer.data  # nobody is there
    assert operator.send("/peers/echo", destination="no such").status == 400


def test_a_hundred_thousand_instances_slow_the_first_view_little(
    tmp_path: Path,
) -> None:
    with page(tmp_path) as made:
        a_job(made)
        browser = made.known("vera")

        def seconds(path: str) -> float:
            browser.text(path)
            found = []
            for _ in range(5):
                started = time.perf_counter()
                browser.text(path)
                found.append(time.perf_counter() - started)
            return min(found)

        paths = ("/", "/jobs", "/jobs?ae=CT1", "/jobs?uid=1.9.7", "/jobs?state=held")
        few = {path: seconds(path) for path in paths}
        with sqlite3.connect(made.state.folder / "queue.sqlite") as database:
            _fill(database, 100_000)
        many = {path: seconds(path) for path in paths}
        assert "100" in browser.text("/")
        for path in paths:
            # Whoever went through all jobs would take a hundred times as long.
            assert many[path] < 5 * few[path] + 0.05, (path, few, many)


def _fill(database: sqlite3.Connection, count: int) -> None:
    database.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        " INSERT INTO instance (sop_instance_uid, study_instance_uid,"
        " calling_ae_title, digest, file, received)"
        " SELECT '1.8.' || i, '1.9.' || (i / 50), 'CT' || (i % 7), randomblob(32), NULL,"
        " strftime('%Y-%m-%dT%H:%M:%S.000000+00:00', 'now', -(i % 1440) || ' minutes')"
        " FROM n",
        [count],
    )
    database.execute(
        "INSERT INTO job (instance_id, study_instance_uid, route, destination, lane,"
        " state, attempts, not_before, reason, settled)"
        " SELECT id, study_instance_uid, 'to research, marked', 'research', 'filter',"
        " CASE WHEN id % 100 = 0 THEN 'held' WHEN id % 20 = 0 THEN 'waiting'"
        " ELSE 'sent' END, 1, received, '', received FROM instance WHERE id > 1"
    )


def test_everybody_of_the_tests_is_somebody() -> None:
    assert {role for roles in NAMES.values() for role in roles} == set(Role)
