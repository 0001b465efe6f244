"""Owners decide who else runs the bot and which programs may; everybody's chat stays their own (S-04, S-05)."""

from __future__ import annotations

import asyncio
import re

import pytest

from claasbot.domain.conversation import Reply
from claasbot.storage import admins, audit
from claasbot.storage.admins import everybody
from claasbot.web.playground import CHAT

from .lesson_rows import learned
from .test_sign_in import GOOD, dumped
from .test_stream import Tab
from .visitors import headers_of, key_for, session_of


class Owner:
    def __init__(self, site, headers):  # type: ignore[no-untyped-def]
        self.site = site
        self.headers = headers

    async def post(self, path: str, facts: object = None):  # type: ignore[no-untyped-def]
        return await self.site.http.post(path, json=facts, headers=self.headers)

    async def get(self, path: str):  # type: ignore[no-untyped-def]
        return await self.site.http.get(path, headers=self.headers)


@pytest.fixture
async def owner(stranger) -> Owner:
    return Owner(stranger, await session_of(stranger, "admin", "owner"))


async def roles(site) -> dict[str, str]:
    return {admin.name: admin.role for admin in await site.parts.store.run(everybody)}


async def test_who_is_added_comes_in_by_a_link_that_no_password_went_through(owner):
    answer = await owner.post("/api/admins", {"name": "eve", "role": "viewer"})
    link = (await answer.json())["link"]
    site = owner.site
    token = link.partition("token=")[2]
    assert (await site.http.post("/sign-in", data={"token": token}, allow_redirects=False)).headers["Location"] == "/"
    assert "signed in as <strong>eve</strong>" in await site.page("/security")
    assert await roles(site) == {"admin": "owner", "eve": "viewer"}


@pytest.mark.parametrize("name", ["", "Eve", "../eve", "e:1", "e e", "x" * 33, "é", "-e"])
async def test_a_name_that_cannot_be_an_account_is_refused(owner, name):
    answer = await owner.post("/api/admins", {"name": name, "role": "viewer"})
    assert answer.status == 400
    assert await roles(owner.site) == {"admin": "owner"}


async def test_a_name_is_never_given_to_a_second_person(owner):
    """What the first one said in the playground belongs to that name."""
    await owner.post("/api/admins", {"name": "eve", "role": "viewer"})
    assert (await owner.post("/api/admins/eve/remove")).status == 200
    again = await owner.post("/api/admins", {"name": "eve", "role": "viewer"})
    assert again.status == 400 and "was before" in (await again.json())["error"]


async def test_there_is_always_an_owner(owner):
    for path, facts in (("remove", None), ("role", {"role": "viewer"})):
        answer = await owner.post(f"/api/admins/admin/{path}", facts)
        assert answer.status == 400 and "only owner" in (await answer.json())["error"]
    await owner.post("/api/admins", {"name": "eve", "role": "owner"})
    assert (await owner.post("/api/admins/admin/role", {"role": "viewer"})).status == 200
    assert await roles(owner.site) == {"admin": "viewer", "eve": "owner"}


async def test_a_new_role_holds_from_the_next_request_on(owner):
    headers = await session_of(owner.site, "eve", "admin")
    eve = Owner(owner.site, headers)
    assert (await eve.post("/api/train-now")).status == 200
    await owner.post("/api/admins/eve/role", {"role": "viewer"})
    assert (await eve.post("/api/train-now")).status == 403
    assert (await eve.get("/api/status")).status == 200


async def test_who_is_removed_is_out_at_once(owner):
    eve = Owner(owner.site, await session_of(owner.site, "eve", "owner"))
    await owner.post("/api/admins/eve/remove")
    assert (await eve.get("/api/status")).status == 401


async def test_keys_go_with_the_owner_who_made_them(owner):
    eve = Owner(owner.site, await session_of(owner.site, "eve", "owner"))
    for end in ("role", "remove"):
        made = await eve.post("/api/keys", {"name": "script", "scopes": ["write"]})
        program = Owner(owner.site, {"Authorization": f"Bearer {(await made.json())['key']}"})
        assert (await program.post("/api/train-now")).status == 200
        await owner.post(f"/api/admins/eve/{end}", {"role": "admin"} if end == "role" else None)
        assert (await program.post("/api/train-now")).status == 401
        await owner.post("/api/admins/eve/role", {"role": "owner"})


async def test_a_key_is_shown_once_and_stored_as_a_hash(owner):
    made = await owner.post("/api/keys", {"name": "script", "scopes": ["read"], "days": 2})
    key = (await made.json())["key"]
    assert key.startswith("claasbot_") and len(key) >= 52
    stored = "\n".join(await owner.site.parts.store.run(lambda db: list(db.conn.iterdump())))
    assert key not in stored and key.removeprefix("claasbot_") not in stored
    listed = await (await owner.get("/api/keys")).text()
    assert "script" in listed and key not in listed and "sha256" not in listed
    program = {"Authorization": f"Bearer {key}"}
    assert (await owner.site.http.get("/api/status", headers=program)).status == 200
    assert "2026-11-20T12:00" in (await (await owner.get("/api/keys")).json())[0]["last_used_at"]
    owner.site.later(days=2)
    assert (await owner.site.http.get("/api/status", headers=program)).status == 401


@pytest.mark.parametrize(
    "facts",
    [
        {"name": "x"},
        {"name": "x", "scopes": ["everything"]},
        {"name": "", "scopes": ["read"]},
        {"name": "x", "scopes": ["read"], "days": 0},
        {"name": "x", "scopes": ["read"], "days": 100_000},
    ],
)
async def test_a_key_for_nothing_or_for_ever_is_not_made(owner, facts):
    assert (await owner.post("/api/keys", facts)).status == 400
    assert await (await owner.get("/api/keys")).json() == []


async def test_a_revoked_key_opens_nothing_and_its_stream_ends(owner):
    headers, key_id = await key_for(owner.site, ("read",))
    async with owner.site.http.get("/api/stream", headers=headers) as stream:
        await stream.content.readuntil(b"\n\n")
        assert (await owner.post(f"/api/keys/{key_id}/revoke")).status == 200
        async with asyncio.timeout(1):
            assert await stream.content.read() == b""
    assert (await owner.site.http.get("/api/status", headers=headers)).status == 401
    missing, again = [await owner.post(f"/api/keys/{number}/revoke") for number in (99, key_id)]
    assert (missing.status, await missing.text()) == (again.status, await again.text())


async def test_the_page_shows_what_is_made_once(owner):
    form = {"name": "script", "scope": "metrics", "days": "30", "csrf_token": owner.headers["X-CSRF-Token"]}
    page = await owner.site.http.post("/api/keys", data=form, headers=owner.headers)
    assert "Your API key" in await page.text() and "claasbot_" in await page.text()
    assert page.headers["Cache-Control"] == "no-store"
    form = {"name": "eve", "role": "viewer"}
    page = await owner.site.http.post("/api/admins", data=form, headers=owner.headers)
    assert "Your link for eve" in await page.text() and "/sign-in?token=" in await page.text()
    shown = await (await owner.get("/security")).text()
    assert "script" in shown and "eve" in shown and "claasbot_" not in shown.replace("claasbot_session", "")


async def test_everything_that_owners_decide_is_written_down(owner):
    await owner.post("/api/admins", {"name": "eve", "role": "viewer"})
    await owner.post("/api/admins/eve/role", {"role": "admin"})
    await owner.post("/api/admins/eve/link", {})
    await owner.post("/api/keys", {"name": "script", "scopes": ["write", "read"]})
    await owner.post("/api/keys/1/revoke")
    await owner.post("/api/admins/eve/remove")
    written = [row["did"] for row in reversed(await owner.site.parts.store.run(audit.latest))]
    assert written == [
        "admin: added as viewer playground:eve",
        "admin: now admin playground:eve",
        "admin: new link playground:eve",
        "key 1: made for read, write",
        "key 1: revoked",
        "admin: removed playground:eve",
    ]


OPENS_A_DOOR = {
    "/api/admins": {"name": "mallory", "role": "owner"},
    "/api/admins/admin/link": {},
    "/api/admins/eve/role": {"role": "owner"},
    "/api/keys": {"name": "script", "scopes": ["write"]},
}


@pytest.mark.parametrize("path", OPENS_A_DOOR)
async def test_a_session_that_was_left_open_opens_no_door_for_good(owner, path):
    """Whoever sits there adds no owner, prints no link, makes no key: the password is asked for (S-06)."""
    site = owner.site
    await session_of(site, "eve", "viewer")
    password_hash = await site.parts.passwords.hashed(GOOD, of="admin")
    await site.parts.store.run(lambda db: admins.set_password(db, admins.named(db, "admin").admin_id, password_hash))
    for facts in (OPENS_A_DOOR[path], {**OPENS_A_DOOR[path], "password": "wrong, but long"}):
        before = await dumped(site)
        assert (await owner.post(path, facts)).status == 403
        assert await dumped(site) == before
    assert (await owner.post(path, {**OPENS_A_DOOR[path], "password": GOOD})).status == 200


async def test_a_link_from_the_dashboard_goes_around_nobodys_second_factor(owner):
    """Only the terminal of the machine opens a door that asks for a code (ASVS 6.4.3)."""
    site = owner.site
    await session_of(site, "eve", "viewer")
    await site.parts.store.run(
        lambda db: admins.confirm_second_factor(db, admins.named(db, "eve").admin_id, (), site.now)
    )
    before = await dumped(site)
    answer = await owner.post("/api/admins/eve/link", {})
    assert answer.status == 400 and "sign-in --name eve" in (await answer.json())["error"]
    assert await dumped(site) == before


async def test_the_page_asks_for_the_password_wherever_a_door_is_opened(owner):
    site = owner.site
    password_hash = await site.parts.passwords.hashed(GOOD, of="admin")
    await site.parts.store.run(lambda db: admins.set_password(db, admins.named(db, "admin").admin_id, password_hash))
    forms = re.findall(r'action="(/api/[^"]+)".*?</form>', await (await owner.get("/security")).text(), re.DOTALL)
    asked = re.findall(
        r'action="(/api/[^"]+)"(?:(?!</form>).)*name="password"', await (await owner.get("/security")).text(), re.DOTALL
    )
    assert forms == asked == ["/api/admins/admin/role", "/api/admins/admin/link", "/api/admins", "/api/keys"]


async def test_an_admin_of_any_name_chats_in_a_chat_of_their_own(stranger):
    """Also one whose name is that of the first owner's chat."""
    playground = stranger.parts.playground
    names = ["admin", CHAT, f"{CHAT}-{CHAT}", "eve", "key:1"]
    assert len({playground.address_of(name).chat for name in names}) == len(names)


async def test_two_admins_and_a_key_chat_each_in_a_chat_of_their_own(owner):
    """What one says or reads never reaches the other's page or person (S-05)."""
    site = owner.site
    people = {
        "admin": owner.headers,
        "eve": await session_of(site, "eve", "admin"),
        "key:1": (await key_for(site, ("read", "write")))[0],
    }
    for who, headers in people.items():
        event = {"kind": "said", "update_key": f"k-{who}", "text": f"secret of {who}"}
        assert (await site.http.post("/api/events", json=event, headers=headers)).status == 202
    addresses = {event.account: event.address.chat for event in site.accepted}
    assert addresses == {"admin": "main", "eve": "eve", "key:1": "key:1"}
    for who, headers in people.items():
        async with site.http.get("/api/stream", headers=headers) as stream:
            tab = Tab(stream)
            _, hello = await tab.next()
            assert [one["text"] for one in hello["waiting"]] == [f"secret of {who}"]
            for event in site.accepted:
                await site.parts.playground.send(event.address, Reply(text=f"for {event.account}", notice=True))
            assert (await tab.next())[1]["text"] == f"for {who}"
            assert not stream.content._buffer
        facts = await (await site.http.get("/api/transcript", headers=headers)).json()
        assert {one["text"] for one in facts["notices"]} == {f"for {who}"}


async def test_another_admins_person_is_reached_by_no_route_of_ones_own_chat(owner):
    """The first owner has said things; eve exports, compares and reads: nothing is there for her (S-05)."""
    await owner.site.parts.store.run(learned, "shorter")
    eve = Owner(owner.site, await session_of(owner.site, "eve", "admin"))
    assert (await eve.get("/api/transcript")).status == 200
    assert (await (await eve.get("/api/transcript")).json())["person_id"] is None
    mine, none = (
        await eve.get("/api/export"),
        await Owner(owner.site, await headers_of(owner.site, "admin")).get("/api/export"),
    )
    assert (mine.status, await mine.text()) == (none.status, await none.text()) and mine.status == 404
    assert (await eve.post("/api/compare", {"question": "x"})).status == 404
    assert not [call for call in owner.site.asked if call[0] in ("export", "compare")]


async def test_ids_that_do_not_exist_and_ids_that_are_none_look_the_same(owner):
    for path in ("/people/{}", "/lessons/{}"):
        pages = [await (await owner.get(path.format(number))).text() for number in ("987654321", "0")]
        assert len({page.replace("987654321", "0") for page in pages}) == 1, path


async def test_a_viewers_pages_offer_nothing_that_would_be_refused(stranger):
    await stranger.parts.store.run(learned, "shorter")
    viewer = Owner(stranger, await headers_of(stranger, "viewer"))
    for path in ("/", "/people/1", "/door", "/feedback"):
        page = await (await viewer.get(path)).text()
        assert page.count('method="post"') == 1 and 'action="/sign-out"' in page, path
    assert 'href="/playground"' not in (await (await viewer.get("/lessons")).text()).partition("</header>")[0]


async def test_the_first_owner_is_there_before_the_first_who_is_added(stranger, tmp_path):
    from .test_server import serving, terminal

    path = tmp_path / "run" / "socket"
    async with serving(stranger.parts, socket_path=path), terminal(path) as session:
        assert (await session.post("/api/admins", json={"name": "eve", "role": "viewer"})).status == 200
        assert await roles(stranger) == {"admin": "owner", "eve": "viewer"}
        password = {"password": "drei Enten am Fluss"}
        assert (await session.post("/api/admins/eve/password", json=password)).status == 200
        assert (await session.post("/api/admins/eve/password", json={"password": "short"})).status == 400
        assert (await session.post("/api/admins/nobody/password", json=password)).status == 404
    assert (await stranger.parts.store.run(admins.named, "eve")).has_password
