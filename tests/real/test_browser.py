"""A person in a real browser teaches the real stack: sign in, chat, agree, feedback, learned, compare, undo."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import ConsoleMessage, Page, async_playwright, expect

CHROMIUM = os.environ.get("CHROMIUM") or "/usr/bin/chromium"
ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
ANSWER_MS = 120_000
LESSON_MS = 300_000
QUICK_MS = 15_000

pytestmark = [pytest.mark.real, pytest.mark.browser]


class Watched:
    """A page, and everything that a browser has to complain about it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"a dialog: {dialog.message}"))

    def _console(self, line: ConsoleMessage) -> None:
        if line.type in ("error", "warning"):
            self.complaints.append(line.text)

    async def watch_growth(self, *, stop_it: bool = False) -> None:
        """Note how long the answer is whenever it has grown, or stop it at once: quicker than any polling."""
        await self.page.evaluate(
            """(stopIt) => {
                window.lengths = new Set();
                const observer = new MutationObserver(() => {
                    const said = document.querySelector(".turn.assistant.writing .said");
                    if (!said?.textContent) return;
                    window.lengths.add(said.textContent.length);
                    if (!stopIt) return;
                    observer.disconnect();
                    document.getElementById("stop").click();
                });
                observer.observe(document.getElementById("log"), { childList: true, subtree: true });
            }""",
            stop_it,
        )

    async def say(self, text: str) -> None:
        await self.page.get_by_label("Your message").fill(text)
        await self.page.keyboard.press("Enter")

    async def answered(self, n: int) -> str:
        """The version that gave the n-th answer, once it is whole."""
        answer = self.page.locator(".turn.assistant:not(.writing)").nth(n - 1)
        badge = answer.locator(".who .badge")
        await expect(badge).to_be_visible(timeout=ANSWER_MS)
        return await badge.inner_text()


@pytest.fixture
async def browser_page(running_app) -> AsyncIterator[Watched]:
    if shutil.which(CHROMIUM) is None:
        pytest.fail(f"{CHROMIUM} is missing: install Debian's chromium package; this test never skips")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        context = await browser.new_context(viewport={"width": 1280, "height": 800}, base_url=running_app.url)
        context.set_default_timeout(QUICK_MS)
        yield Watched(await context.new_page())
        await browser.close()


async def sign_in(watched: Watched, link: str) -> None:
    page = watched.page
    await page.goto(link)
    await page.get_by_role("button", name="Sign in here").click()
    await page.wait_for_url("**/playground")


async def test_a_person_teaches_the_bot_in_the_browser(running_app, browser_page):
    watched, page = browser_page, browser_page.page
    await sign_in(watched, running_app.sign_in_url)

    await watched.watch_growth()
    await watched.say("What is rain?")
    assert await watched.answered(1) == "base"
    assert await page.evaluate("window.lengths.size") > 3, "the answer came in one piece"
    await page.get_by_role("button", name="Yes, learn from me").click()
    await expect(page.get_by_role("button", name="Stop learning here")).to_be_visible()

    await page.get_by_role("button", name="Give feedback").click()
    await page.keyboard.type("Please answer in one short sentence.")
    await page.keyboard.press("Enter")
    became = page.locator(".became li").first
    await expect(became.locator(".chip")).to_have_text(re.compile("noted|learning…|learned"))
    await expect(became.locator(".chip")).to_have_text("learned", timeout=LESSON_MS)
    version = await became.locator(".badge").inner_text()
    assert re.fullmatch(r"p\d+\.v\d+", version), version

    await watched.say("What is snow?")
    assert await watched.answered(2) == version

    await page.get_by_role("button", name="See difference").click()
    await expect(page.locator("#compare-sides")).to_be_visible(timeout=ANSWER_MS)
    assert [await page.locator(f"#{side}-version").inner_text() for side in ("before", "now")] == ["base", version]
    for side in ("before", "now"):
        await expect(page.locator(f"#{side}-text")).not_to_be_empty()
    await page.get_by_role("button", name="Close").click()

    await became.get_by_role("link", name="lesson").click()
    await expect(page.get_by_role("heading", name="Where the time went")).to_be_visible()
    await expect(page.locator("svg.curve").first).to_be_visible()
    await page.get_by_role("link", name="Playground").click()

    await page.get_by_role("button", name="Undo the last lesson").click()
    await expect(page.locator("#version-state")).to_contain_text("The base model answers you")
    await watched.say("What is hail?")
    assert await watched.answered(3) == "base"
    assert watched.complaints == []


async def test_a_stopped_answer_stays_stopped(running_app, browser_page):
    watched, page = browser_page, browser_page.page
    await sign_in(watched, running_app.ask("POST", "/api/sign-in-link")["link"])
    await page.get_by_role("button", name="New conversation").click()
    await expect(page.locator(".notice").last).to_contain_text("new conversation")
    await watched.watch_growth(stop_it=True)
    await watched.say("Tell me a very long story about a river.")
    await watched.answered(1)
    await expect(page.locator(".turn.assistant .remark")).to_have_text("stopped")
    await page.reload()
    await expect(page.locator(".turn.assistant .remark")).to_have_text("stopped")
    assert watched.complaints == []
