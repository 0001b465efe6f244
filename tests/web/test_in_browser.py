"""What only a browser can show of the playground: Markdown as elements, echoes, inert buttons. No model, no server."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator

import pyotp
import pytest
from playwright.async_api import Page, async_playwright, expect
from sqlite_utils import Database

from claasbot.domain.conversation import Button, Reply
from claasbot.storage import error_rows
from claasbot.web.sign_in import new_sign_in_link
from tests.hostile.markup import HOSTILE_TEXTS

from .conftest import NOON
from .lesson_rows import learned
from .test_stored_text import LISTS, fill

CHROMIUM = os.environ.get("CHROMIUM") or "/usr/bin/chromium"
ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
ANSWER = (
    "**Bold**, `x < y` and\n- one\n- **two `three`**\n```js\nalert(1) // **no**\n```\n"
    "<img src=x onerror=alert(2)> 2**3**4 * `open"
)
LEARNED = Reply(
    text="Learned from your note “shorter”: p1.v1 answers now.",
    notice=True,
    buttons=(Button(label="See difference", action="compare"), Button(label="Undo", action="undo:1")),
    data={"version": "p1.v1", "said": "shorter", "version_id": 1},
)

pytestmark = pytest.mark.browser


@pytest.fixture
async def page(stranger) -> AsyncIterator[Page]:
    """The playground, signed in; anything that the browser complains about fails the test."""
    if shutil.which(CHROMIUM) is None:
        pytest.fail(f"{CHROMIUM} is missing: install Debian's chromium package; this test never skips")
    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        page = await browser.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"a dialog: {dialog.message}"))
        page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        url = str(stranger.http.make_url("")).rstrip("/")
        await page.goto(await new_sign_in_link(stranger.parts.store, stranger.parts.clock, url))
        await page.get_by_role("button", name="Sign in here").click()
        await page.wait_for_url("**/playground")
        await expect(page.locator("#consent-state")).not_to_have_text("…")
        yield page
        await browser.close()
    assert complaints == []


async def test_an_answers_markdown_is_made_of_elements_and_never_of_its_text(stranger, page):
    playground = stranger.parts.playground
    writer = await playground.open_reply(playground.address, None)
    await writer.write("**Bo")
    await expect(page.locator(".turn .said")).to_have_text("**Bo")  # while it is written
    await stranger.parts.store.run(learned, ANSWER)
    await writer.finish(Reply(text=ANSWER, completion_id=1, version_name="base"))
    said = page.locator(".turn.assistant .said")
    await expect(said.locator("strong")).to_have_text(["Bold", "two three"])
    await expect(said.locator("code:not(.block)")).to_have_text(["x < y", "three"])
    await expect(said.locator("code.block")).to_have_text("alert(1) // **no**")
    assert await said.locator("img").count() == 0
    text = await said.text_content()
    assert text.startswith("Bold, x < y and\n- one\n- two three")
    assert "<img src=x onerror=alert(2)>" in text and text.endswith("* `open")


async def test_a_typed_command_is_seen_as_ones_own_line(stranger, page):
    await page.get_by_label("Your message").fill("/status now")
    await page.keyboard.press("Enter")
    await expect(page.locator(".turn.user .said")).to_have_text("/status now")
    playground = stranger.parts.playground
    await playground.send(playground.address, Reply(text="The base model answers you.", notice=True))
    await expect(page.locator("#log > article").nth(1)).to_have_text("The base model answers you.")
    assert [event.command for event in stranger.accepted] == ["status"]


async def test_nothing_can_be_exported_before_anything_is_stored(stranger, page):
    export = page.locator("#export")
    await expect(export).to_have_attribute("aria-disabled", "true")
    assert await export.get_attribute("href") is None
    await stranger.parts.store.run(learned, "shorter")
    await page.reload()
    await expect(export).to_have_attribute("href", "/api/export")
    await expect(export).to_have_attribute("aria-disabled", "false")


async def test_the_buttons_of_an_undone_lesson_do_nothing_and_say_so(stranger, page):
    playground, store = stranger.parts.playground, stranger.parts.store
    await store.run(learned, "shorter")
    await playground.send(playground.address, LEARNED)
    notice = page.locator(".notice", has_text="Learned from")
    await expect(notice.get_by_role("button", name="Undo")).to_be_enabled()
    await store.run(lambda db: db.conn.execute("UPDATE person SET current_version_id = NULL"))
    undone = Reply(text="Undone: the base model answers you now.", notice=True, data={"version": "base"})
    await playground.send(playground.address, undone)
    await expect(notice.get_by_role("button", name="Undo")).to_be_disabled()
    await expect(notice.get_by_role("button", name="See difference")).to_be_disabled()
    await expect(notice.locator(".muted")).to_have_text("undone")


async def test_no_stored_text_runs_in_a_browser(stranger, page):
    """A sample of what test_stored_text.py looks at, where it would run: any dialog or refused load is a complaint."""
    await stranger.parts.store.run(fill, HOSTILE_TEXTS[::9])
    url = str(stranger.http.make_url("")).rstrip("/")
    for path in (*LISTS, "/people/1", "/people/30", f"/lessons/{0:024x}"):
        await page.goto(f"{url}{path}")
        await expect(page.locator("h1")).to_have_count(1)
        assert await page.locator("main iframe, main object, main embed, main script, base").count() == 0, path


async def test_no_page_is_wider_than_its_window_whatever_people_write(stranger, page):
    long = "w" * 400

    def unit(db: Database) -> None:
        fill(db, (long, long))
        error_rows.add(db, "abc123", NOON, place=f"services/{long}.py", kind=long, trace=long)

    await stranger.parts.store.run(unit)
    url = str(stranger.http.make_url("")).rstrip("/")
    for width in (1280, 980, 400):
        await page.set_viewport_size({"width": width, "height": 800})
        for path in (*LISTS, "/people/1", f"/lessons/{0:024x}", f"/lessons/{1:024x}"):
            await page.goto(f"{url}{path}")
            widths = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert widths[0] <= widths[1], (path, widths)
            here = page.locator("nav [aria-current]")
            assert (await here.bounding_box())["x"] + 20 < width, f"{path}: where one is stands out of sight"


async def test_an_owner_sets_a_password_and_a_second_factor_and_signs_in_with_both(stranger, page):
    """By hand, without a script of ours: forms, the QR code, the recovery codes, and the form of the way in."""
    await page.get_by_role("link", name="Security").click()
    await page.get_by_label("New password").fill("drei Enten am Fluss")
    await page.get_by_label("The same again").fill("drei Enten am Fluss")
    await page.get_by_role("button", name="Set password").click()
    await page.get_by_role("button", name="Set up").click()
    await expect(page.locator(".qr svg path").first).to_be_visible()
    secret = await page.locator("code.block").text_content()
    await page.get_by_role("textbox", name="Code").fill(pyotp.TOTP(secret).at(stranger.now))
    await page.get_by_role("button", name="Turn on").click()
    codes = await page.locator(".once code").all_text_contents()
    assert len(codes) == 10
    await page.get_by_role("link", name="Back to Security").click()
    await expect(page.get_by_text("10 recovery codes are left")).to_be_visible()
    await page.get_by_role("button", name="Sign out").click()
    await page.get_by_role("textbox", name="Name").fill("admin")
    await page.get_by_label("Password").fill("drei Enten am Fluss")
    await page.get_by_role("textbox", name="Code").fill(codes[0])
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url("**/playground")
