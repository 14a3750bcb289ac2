"""Logging in with an OpenID provider: who is let in, and what is not believed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import urllib3

from dicom_node.web.oidc import Provider as OwnProvider
from tests.pages import Browser, Page, page
from tests.provider import CLIENT, Provider, another_key, provider


@pytest.fixture(scope="module")
def known() -> Iterator[Provider]:
    with provider() as made:
        yield made


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, known: Provider
) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("page")
    with page(
        folder, web=f'oidc_issuer = "{known.issuer}"\noidc_client_id = "{CLIENT}"'
    ) as p:
        yield p


@pytest.fixture(autouse=True)
def honest(known: Provider) -> None:
    known.claims, known.signs_with = {}, None


def there(browser: Browser) -> str:
    """Leave for the provider, and return where it sends one back to."""
    leaving = browser.get("/login/oidc")
    assert leaving.status == 303
    answer = urllib3.request("GET", leaving.headers["location"], redirect=False)
    assert answer.status == 302
    return answer.headers["location"].removeprefix(browser.origin)


def test_who_the_provider_knows_is_let_in(running: Page) -> None:
    browser = running.browser()
    assert "Log in with your organisation" in browser.text("/login")
    answer = browser.get(there(browser))
    assert answer.status == 200
    assert b"You are logged in" in answer.data
    assert "anna(4711)" in browser.text("/grants")  # an officer
    token = browser.token()
    assert browser.post("/peers/echo", token=token).status == 403  # no operator
    did = [(e["did"], e["by"]) for e in running.audit() if e["event"] == "access"]
    assert ("logged in", "anna(4711)") in did


LIES: dict[str, dict[str, Any]] = {
    "another issuer": {"iss": "http://evil.example"},
    "another audience": {"aud": "another page"},
    "several audiences": {"aud": [CLIENT, "another page"]},
    "another nonce": {"nonce": "of another time"},
    "no nonce": {"nonce": None},
    "it has ended": {"exp": 1_600_000_000},
    "no end": {"exp": None},
    "no subject": {"sub": None},
    "no role here": {"roles": ["admin"]},
    "no roles": {"roles": None},
}


@pytest.mark.parametrize("lie", LIES)
def test_what_does_not_hold_is_not_believed(
    running: Page, known: Provider, lie: str
) -> None:
    known.claims = LIES[lie]
    browser = running.browser()
    assert browser.get(there(browser)).status == 400
    assert browser.get("/").status == 303


def test_a_token_that_somebody_else_signed_is_not_believed(
    running: Page, known: Provider
) -> None:
    known.signs_with = another_key()
    browser = running.browser()
    assert browser.get(there(browser)).status == 400
    assert browser.get("/").status == 303


def test_an_answer_is_good_for_who_has_asked_and_once(running: Page) -> None:
    browser, other = running.browser(), running.browser()
    back = there(browser)
    assert other.get(back).status == 400  # somebody else's browser
    assert browser.get(back.replace("state=", "state=x")).status == 400
    assert browser.get(back).status == 200
    assert running.browser().get(back).status == 400
    fresh = running.browser()
    back = there(fresh)
    fresh.cookies.pop("miadmark")  # browsers do not send it along from elsewhere
    assert fresh.get(back).status == 200
    assert fresh.get("/").status == 200
    browser.cookies.clear()
    assert browser.get(back).status == 400


def test_two_subjects_are_two_people(running: Page, known: Provider) -> None:
    names = set()
    for subject in ("s" * 200 + "1", "s" * 200 + "2"):
        known.claims = {"preferred_username": "anna(", "sub": subject}
        browser = running.browser()
        assert browser.get(there(browser)).status == 200
        names |= {e["by"] for e in running.audit() if e.get("did") == "logged in"}
    assert {f"anna({'s' * 200}1)", f"anna({'s' * 200}2)"} <= names
    known.claims = {"sub": "s" * 256}
    browser = running.browser()
    assert browser.get(there(browser)).status == 400


def test_another_name_makes_nobody_another_person(
    running: Page, known: Provider
) -> None:
    def officer(name: str, subject: str) -> Browser:
        known.claims = {"preferred_username": name, "sub": subject}
        browser = running.browser()
        assert browser.get(there(browser)).status == 200
        return browser

    values = {"ae_titles": "PARTNER", "purpose": "research", "days": "30"}
    anna = officer("anna", "4711")
    assert anna.send("/grants/propose", **values, certificate="0" * 64).status == 303
    renamed = officer("berta", "4711")
    answer = renamed.send("/grants/1/approve")
    assert answer.status == 400
    assert b"under another name" in answer.data
    assert officer("anna", "4712").send("/grants/1/approve").status == 303


@pytest.mark.parametrize("keys", [{}, {"keys": "none"}, {"keys": [{"kty": "what"}]}])
def test_keys_that_are_none_let_nobody_in(
    running: Page, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any]
) -> None:
    browser = running.browser()
    back = there(browser)
    asked = OwnProvider._asked

    def answered(self: OwnProvider, method: str, where: str, **more: Any) -> Any:
        return (
            asked(self, method, where, **more) if not where.endswith("/keys") else keys
        )

    monkeypatch.setattr(OwnProvider, "_asked", answered)
    before = len(running.audit())
    assert browser.get(back).status == 400
    assert any(e.get("did") == "refused" for e in running.audit()[before:])


def test_who_comes_back_too_late_is_not_let_in(running: Page) -> None:
    browser = running.browser()
    back, now = there(browser), running.now[0]
    running.now[0] += timedelta(seconds=601)
    try:
        answer = browser.get(back)
    finally:
        running.now[0] = now
    assert answer.status == 400
    assert b"too long ago" in answer.data


def test_a_provider_that_is_away_is_told_of(tmp_path: Path) -> None:
    with (
        provider() as gone,
        page(
            tmp_path, web=f'oidc_issuer = "{gone.issuer}x"\noidc_client_id = "a"'
        ) as made,
    ):
        answer = made.browser().get("/login/oidc")
        assert answer.status == 400
        assert b"does not answer" in answer.data or b"provider answers" in answer.data
        assert made.known("vera").get("/").status == 200  # local people come in
