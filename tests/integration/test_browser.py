"""The page in a real browser: by keyboard, in the dark, large, and for everybody.

Debian's Chromium, driven by Playwright. Pictures of it are kept in the folder that
``MIADMARK_SCREENSHOTS`` names, or among the temporary files of the tests.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect, sync_playwright
from playwright.sync_api import Page as Tab

from dicom_node.breaker import Trouble
from dicom_node.elements import Limits
from dicom_node.instance import OpenInstance
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.history import Search
from dicom_node.queue.job import JobState
from tests.pages import PASSWORD, Page, page

if TYPE_CHECKING:
    from tests.conftest import MarkOne

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.alone,  # a browser is quick to give up where it has to wait
    pytest.mark.skipif(
        CHROMIUM is None, reason="left out: no chromium (apt-get install chromium)"
    ),
]

expect.set_options(timeout=30_000)  # machines are busy, and five seconds are few

RESEARCH = Owed("to research, marked", "research")
ARCHIVE = Owed("to the archive", "archive <b>")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = os.environ.get("MIADMARK_SCREENSHOTS")
    made = Path(folder) if folder else tmp_path_factory.mktemp("screenshots")
    made.mkdir(parents=True, exist_ok=True)
    return made


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Page]:
    """A page of a node on which something has happened."""
    with page(tmp_path_factory.mktemp("page")) as made:
        spool, now = made.state.spool(made.site.keyring.spool), made.now[0]
        with made.site.queue() as queue:
            for number in range(60):
                moment = now - timedelta(minutes=23 * number)
                owed = [RESEARCH] if number % 3 else [RESEARCH, ARCHIVE]
                study = f"1.2.826.0.1.3680043.8.498.{number // 6}"
                uid = f"{study}.{number}"
                source = (images / "chest-xray-pneumonia.dcm").read_bytes()
                name = spool.write([source])
                digest = number.to_bytes(32, "big")
                arrival = Arrival(uid, digest, name, study, f"CT{number % 3}")
                queue.add(arrival, owed, moment)
            for number in range(50):
                job = queue.claim(now + timedelta(1), timedelta(minutes=1))
                assert job is not None
                if number % 12 == 0:
                    queue.hold(job, "research answered 0xA900 (failure). Look there")
                else:
                    queue.sent([job], now - timedelta(minutes=21 * number))
        reach = made.state.reachability(made.site.config)
        with reach as table:
            for _ in range(3):
                table.failed("research", Trouble.UNREACHABLE, "no answer", now)
        yield made


def a_tab(chromium: Browser, running: Page, who: str, **more: object) -> Tab:
    """A tab in which somebody has logged in, by keyboard."""
    context = chromium.new_context(**more)  # type: ignore[arg-type]
    tab = context.new_page()
    tab.set_default_timeout(20_000)
    tab.goto(f"{running.origin}/")
    for text in (who, PASSWORD):
        press_to(tab, "#name" if text == who else "#password")
        tab.keyboard.type(text)
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("heading", name="Overview")).to_be_visible()
    return tab


def press_to(tab: Tab, selector: str) -> None:
    """Press the tabulator until something has the focus."""
    for _ in range(120):
        if tab.evaluate("s => document.activeElement.matches(s)", selector):
            return
        tab.keyboard.press("Tab")
    raise AssertionError(f"{selector} is not to be reached by keyboard")


def test_a_held_job_is_found_and_released_by_keyboard_alone(
    chromium: Browser, running: Page, pictures: Path
) -> None:
    tab = a_tab(chromium, running, "otto")
    tab.screenshot(path=pictures / "overview.png", full_page=True)
    expect(tab.get_by_text("down").first).to_be_visible()
    press_to(tab, "nav a[href='/jobs']")
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("heading", name="Jobs")).to_be_visible()
    tab.keyboard.press("/")  # to the first field
    press_to(tab, "#state")
    tab.keyboard.type("held")
    press_to(tab, "form[role=search] button")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/jobs?*state=held*")
    tab.screenshot(path=pictures / "jobs.png", full_page=True)
    press_to(tab, "td a[href^='/jobs/']")
    number = int(tab.evaluate("document.activeElement.textContent"))
    tab.keyboard.press("Enter")
    tab.wait_for_url(f"**/jobs/{number}")
    tab.screenshot(path=pictures / "job.png", full_page=True)
    press_to(tab, "form[action$='/release'] button")
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("status")).to_contain_text(f"job {number} is tried again")
    with running.site.history() as history:
        seen = history.job(number)
    assert seen is not None
    assert seen.state is JobState.WAITING
    assert "done=" not in tab.url
    tab.context.close()


@pytest.fixture(scope="module")
def marked(running: Page, images: Path, mark_one: MarkOne) -> int:
    """A job whose instance is marked, and on its way."""
    content = (images / "chest-xray-normal.dcm").read_bytes()
    sent = mark_one(OpenInstance.of(content, Limits()))
    spool = running.state.spool(running.site.keyring.spool)
    arrival = Arrival("1.2.7", bytes(32), spool.write([content]), "1.2.7.1", "CT9")
    with running.site.queue() as queue:
        queue.add(arrival, [RESEARCH._replace(priority=9)], running.now[0])
        job = queue.claim(running.now[0], timedelta(minutes=1))
        assert job is not None
        queue.keep_filtered(job, spool.write(sent.file.chunks()), "mark research")
        queue.retry(job, running.now[0] + timedelta(days=2), "it is away")
    return job.id


def test_before_and_after_are_shown_and_follow_the_window(
    chromium: Browser, running: Page, pictures: Path, marked: int
) -> None:
    tab = a_tab(chromium, running, "olga")
    tab.goto(f"{running.origin}/jobs/{marked}/pictures")
    shown = tab.locator("figure img")
    expect(shown).to_have_count(3)
    sizes = shown.evaluate_all("all => all.map(one => one.naturalWidth)")
    assert all(size > 100 for size in sizes), sizes
    expect(tab.get_by_text("PSNR")).to_contain_text("dB")
    before, width = shown.first.screenshot(), tab.get_by_label("Window width")
    own = width.input_value()
    for wanted in ("20", own):
        width.fill(wanted)
        tab.get_by_role("button", name="Show").click()
        expect(width).to_have_value(wanted)
        tab.wait_for_load_state("networkidle")
        assert (shown.first.screenshot() == before) == (wanted == own)
    tab.get_by_role("link", name="What do classifiers say").click(timeout=90_000)
    expect(tab.get_by_role("row", name="surrogate").first).to_contain_text("%")
    tab.wait_for_load_state("networkidle")
    tab.screenshot(path=pictures / "before-and-after.png", full_page=True)
    viewer = a_tab(chromium, running, "vera")
    viewer.goto(f"{running.origin}/jobs/{marked}/pictures")
    expect(viewer.locator("figure img")).to_have_count(1)  # the marked one
    for which in ("original", "difference"):
        url = f"{running.origin}/jobs/{marked}/{which}.png"
        assert viewer.request.get(url).status == 400
    tab.context.close()
    viewer.context.close()


def test_an_original_is_for_who_may_see_it(chromium: Browser, running: Page) -> None:
    with running.site.history() as history:
        number = history.found(Search(state="held"), 1)[0].id
    seen = {}
    for who in ("vera", "olga"):
        tab = a_tab(chromium, running, who)
        tab.goto(f"{running.origin}/jobs/{number}/pictures", timeout=60_000)
        seen[who] = tab.locator("figure img").count()
        answer = tab.request.get(f"{running.origin}/jobs/{number}/original.png")
        assert answer.status == (200 if who == "olga" else 400)
        tab.context.close()
    assert seen == {"vera": 0, "olga": 1}
    viewed = {
        (entry["by"], entry["original"])
        for entry in running.audit()
        if entry["event"] == "viewed" and entry.get("job") == number
    }
    assert {("vera", "no"), ("olga", "yes")} <= viewed


PAGES = (
    "/",
    "/jobs",
    "/jobs/1",
    "/routes",
    "/peers",
    "/samples",
    "/grants",
    "/keys",
    "/audit",
    "/jobs/999999",
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_every_page(
    chromium: Browser, running: Page, pictures: Path, scheme: str
) -> None:
    found = []
    # Colours are all that is another in the dark.
    of_olga = PAGES if scheme == "light" else ("/", "/jobs", "/grants")
    for who, paths in (("olga", of_olga), ("otto", ("/jobs/1", "/routes"))):
        tab = a_tab(chromium, running, who, color_scheme=scheme)
        for path in paths:
            tab.goto(running.origin + path)
            name = path.strip("/").replace("/", "-") or "overview"
            tab.screenshot(path=pictures / f"{who}-{name}-{scheme}.png", full_page=True)
            results = Axe().run(tab).response
            found += [
                (path, one["id"], node["html"])
                for one in results["violations"]
                for node in one["nodes"]
            ]
        tab.context.close()
    tab = chromium.new_page(color_scheme=scheme)  # type: ignore[arg-type]
    tab.goto(f"{running.origin}/login")
    tab.screenshot(path=pictures / f"login-{scheme}.png")
    found += [
        ("/login", one["id"], "") for one in Axe().run(tab).response["violations"]
    ]
    tab.close()
    assert found == []


def test_at_twice_the_size_nothing_is_out_of_sight(
    chromium: Browser, running: Page, pictures: Path
) -> None:
    # At 200 % a window of 1280 pixels has room for 640.
    small = {"width": 640, "height": 512}
    tab = a_tab(chromium, running, "olga", viewport=small, device_scale_factor=2)
    for path in PAGES:
        tab.goto(running.origin + path)
        wide = tab.evaluate("document.documentElement.scrollWidth")
        assert wide <= small["width"], path
    tab.goto(running.origin)
    tab.screenshot(path=pictures / "overview-200.png", full_page=True)
    tab.context.close()


def test_it_works_without_scripts_and_loads_nothing_from_elsewhere(
    chromium: Browser, running: Page
) -> None:
    tab = a_tab(chromium, running, "vera", java_script_enabled=True)
    asked: list[str] = []
    said: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: said.append(message.text))
    for path in ("/", "/jobs", "/jobs/1", "/samples"):
        tab.goto(running.origin + path)
    assert [url for url in asked if not url.startswith(running.origin)] == []
    assert said == []  # the policy was never in its own way
    tab.context.close()
