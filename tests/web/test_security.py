"""The Security page: who one is once more, password, second factor, sessions that end at once (S-06, S-09)."""

from __future__ import annotations

import asyncio
import html
import re

import pyotp
import pytest

from claasbot.resources import templates_dir
from claasbot.storage import admins, audit, sessions

from .test_sign_in import GOOD, add_eve, dumped, type_in
from .visitors import headers_of, session_of

NEW = "vier Gänse im Regen"


class Eve:
    """An admin with a password, in a browser of her own that she opened with it."""

    def __init__(self, site, headers):  # type: ignore[no-untyped-def]
        self.site = site
        self.headers = headers

    async def post(self, path: str, **form: str):  # type: ignore[no-untyped-def]
        return await self.site.http.post(path, data=form, headers=self.headers, allow_redirects=False)

    async def status(self) -> int:
        return (await self.site.http.get("/api/status", headers=self.headers)).status

    async def page(self) -> str:
        return await (await self.site.http.get("/security", headers=self.headers)).text()

    async def set_up_second_factor(self) -> tuple[str, list[str]]:
        begun = await (await self.post("/security/second-factor", password=GOOD)).text()
        secret = re.search(r'<code class="block">([A-Z2-7]{32})</code>', begun).group(1)  # type: ignore[union-attr]
        confirmed = await self.post("/security/second-factor/confirm", code=pyotp.TOTP(secret).at(self.site.now))
        codes = re.findall(r"[A-Z2-7]{4}(?:-[A-Z2-7]{4}){5}", await confirmed.text())
        return secret, codes


@pytest.fixture
async def eve(stranger) -> Eve:
    await add_eve(stranger)
    return Eve(stranger, await session_of(stranger, "eve", "admin"))


async def test_an_owner_who_came_by_the_link_sets_a_password_and_comes_in_with_it(site):
    form = {"new_password": GOOD, "again": GOOD, "csrf_token": site.csrf}
    answer = await site.http.post("/security/password", data=form, allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (303, "/security")
    site.http.session.cookie_jar.clear()
    assert (await type_in(site, "admin", GOOD)).status == 303


async def test_the_present_password_is_asked_for_before_anything_changes(eve):
    for path, form in (
        ("/security/password", {"new_password": NEW, "again": NEW}),
        ("/security/second-factor", {}),
        ("/security/second-factor/off", {}),
    ):
        for password in ("", "wrong, but long"):
            before = await dumped(eve.site)
            assert (await eve.post(path, **form, password=password)).status == 403
            assert await dumped(eve.site) == before


async def test_the_present_password_cannot_be_tried_over_and_over(eve):
    for _ in range(10):
        await eve.post("/security/password", new_password=NEW, again=NEW, password="wrong, but long")
    assert (await eve.post("/security/password", new_password=NEW, again=NEW, password=GOOD)).status == 403


async def test_with_a_link_from_the_terminal_a_lost_password_is_replaced(eve):
    by_link = Eve(eve.site, await session_of(eve.site, "eve", "admin", is_by_link=True))
    assert (await by_link.post("/security/password", new_password=NEW, again=NEW)).status == 303
    assert (await type_in(eve.site, "eve", GOOD)).status == 403
    assert (await type_in(eve.site, "eve", NEW)).status == 303


async def test_a_new_password_ends_every_other_session_of_the_admin_and_nobody_elses(eve):
    other, owner = Eve(eve.site, await session_of(eve.site, "eve", "admin")), await headers_of(eve.site, "owner")
    assert (await eve.post("/security/password", new_password=NEW, again=NEW, password=GOOD)).status == 303
    assert (await eve.status(), await other.status(), await Eve(eve.site, owner).status()) == (200, 401, 200)


@pytest.mark.parametrize(
    ("new", "again", "words"),
    [(NEW, GOOD, "differ"), ("short", "short", "12 or more"), ("password1234", "password1234", "common")],
)
async def test_a_password_that_will_not_do_is_refused_with_the_reason(eve, new, again, words):
    answer = await eve.post("/security/password", new_password=new, again=again, password=GOOD)
    text = await answer.text()
    assert answer.status == 400 and words in text and GOOD not in text and new not in text
    assert (await type_in(eve.site)).status == 303


async def test_a_second_factor_is_set_up_shown_once_and_asked_for_from_then_on(eve):
    secret, codes = await eve.set_up_second_factor()
    assert len(codes) == 10
    assert "10 recovery codes are left" in await eve.page() and secret not in await eve.page()
    stored = await dumped(eve.site)
    assert not [code for code in codes if code in stored or code.replace("-", "") in stored]
    assert (await type_in(eve.site)).status == 403
    assert (await type_in(eve.site, code=pyotp.TOTP(secret).at(eve.site.now))).status == 403  # spent by the set-up
    assert (await type_in(eve.site, code=codes[0])).status == 303
    eve.site.http.session.cookie_jar.clear()
    eve.site.later(seconds=30)
    assert (await type_in(eve.site, code=pyotp.TOTP(secret).at(eve.site.now))).status == 303


async def test_a_wrong_code_sets_nothing_up(eve):
    await eve.post("/security/second-factor", password=GOOD)
    assert (await eve.post("/security/second-factor/confirm", code="000000")).status == 400
    assert (await type_in(eve.site)).status == 303


async def test_after_a_mistyped_code_the_next_one_counts_without_another_scan(eve):
    begun = await (await eve.post("/security/second-factor", password=GOOD)).text()
    secret = re.findall(r'<code class="block">([A-Z2-7]+)</code>', begun)[0]
    refused = await (await eve.post("/security/second-factor/confirm", code="000000")).text()
    assert 'action="/security/second-factor/confirm"' in refused and secret not in refused
    done = await eve.post("/security/second-factor/confirm", code=pyotp.TOTP(secret).at(eve.site.now))
    assert "recovery codes" in await done.text()


async def test_no_second_factor_without_a_password_nor_a_second_one(eve):
    newcomer = Eve(eve.site, await session_of(eve.site, "newcomer", "viewer", is_by_link=True))
    assert (await newcomer.post("/security/second-factor")).status == 400
    await eve.set_up_second_factor()
    for path, form in (("", {"password": GOOD}), ("/confirm", {"code": "000000"})):
        assert (await eve.post(f"/security/second-factor{path}", **form)).status == 400


async def test_the_second_factor_can_be_turned_off_by_who_knows_the_password(eve):
    _, codes = await eve.set_up_second_factor()
    assert (await eve.post("/security/second-factor/off", password=GOOD)).status == 303
    assert (await type_in(eve.site)).status == 303
    eve.site.http.session.cookie_jar.clear()
    await eve.set_up_second_factor()
    assert (await type_in(eve.site, code=codes[0])).status == 403  # those of the first are gone


async def test_the_qr_code_is_a_drawing_that_the_content_policy_allows(eve):
    page = await (await eve.post("/security/second-factor", password=GOOD)).text()
    drawn = page.partition("<svg")[2].partition("</svg>")[0]
    assert "<path" in drawn and "style" not in drawn and "http" not in drawn


async def test_an_admin_sees_and_ends_own_sessions_only(eve):
    """Anybody else's is as missing as one that never was (S-05)."""
    owner = await headers_of(eve.site, "owner")
    store = eve.site.parts.store
    everybodys = await store.run(lambda db: {row["id"]: row["admin_id"] for row in db["admin_session"].rows})
    (theirs,) = (one for one, admin in everybodys.items() if admin != everybodys[1])
    missing, foreign = [await eve.post(f"/security/sessions/{number}/end") for number in (99, theirs)]
    assert missing.status == foreign.status == 404
    texts = [html.unescape(await answer.text()) for answer in (missing, foreign)]
    assert texts[0] == texts[1]
    assert await Eve(eve.site, owner).status() == 200
    assert "the-owner" not in await eve.page()


async def test_an_owner_sees_and_ends_everybodys_sessions(eve):
    owner = Eve(eve.site, await headers_of(eve.site, "owner"))
    assert "192.0.2.7" in await owner.page() and "eve" in await owner.page()
    assert (await owner.post("/security/sessions/1/end")).status == 303
    assert (await eve.status(), await owner.status()) == (401, 200)


async def test_all_ones_other_sessions_end_at_once(eve):
    others = [Eve(eve.site, await session_of(eve.site, "eve", "admin")) for _ in range(3)]
    assert (await eve.post("/security/sessions/end-others")).status == 303
    assert [await one.status() for one in (eve, *others)] == [200, 401, 401, 401]


async def test_an_owner_and_nobody_else_ends_everybodys_sessions_but_the_own_one(eve):
    owner = Eve(eve.site, await headers_of(eve.site, "owner"))
    viewer = Eve(eve.site, await headers_of(eve.site, "viewer"))
    assert (await viewer.post("/security/sessions/end-others", everybody="yes")).status == 403
    assert [await one.status() for one in (eve, owner, viewer)] == [200, 200, 200]
    assert (await owner.post("/security/sessions/end-others", everybody="yes")).status == 303
    assert [await one.status() for one in (eve, owner, viewer)] == [401, 200, 401]


@pytest.mark.parametrize("how", ["ended by an owner", "signed out", "new password", "removed", "others ended"])
async def test_a_stream_ends_with_its_session_within_a_second(eve, how):
    """Not at its next heartbeat (S-06)."""
    owner = Eve(eve.site, await headers_of(eve.site, "owner"))
    other = Eve(eve.site, await session_of(eve.site, "eve", "admin"))
    async with eve.site.http.get("/api/stream", headers=eve.headers) as stream:
        await stream.content.readuntil(b"\n\n")
        match how:
            case "ended by an owner":
                answer = await owner.post("/security/sessions/1/end")
            case "signed out":
                answer = await eve.post("/sign-out")
            case "new password":
                answer = await other.post("/security/password", new_password=NEW, again=NEW, password=GOOD)
            case "removed":
                answer = await owner.post("/api/admins/eve/remove")
            case _:
                answer = await other.post("/security/sessions/end-others")
        assert answer.status == 303
        async with asyncio.timeout(1):
            assert await stream.content.read() == b""
    assert await eve.status() == 401


async def test_every_change_is_written_down(eve):
    await eve.set_up_second_factor()
    await eve.post("/security/second-factor/off", password=GOOD)
    await eve.post("/security/password", new_password=NEW, again=NEW, password=GOOD)
    await eve.post("/security/sessions/end-others")
    await eve.post("/security/sessions/1/end")
    written = [row["did"] for row in reversed(await eve.site.parts.store.run(audit.latest))]
    assert written == [
        "own second factor: begun",
        "own second factor: on",
        "own second factor: off",
        "own password: changed",
        "own other sessions: ended",
        "session 1: ended",
    ]


async def test_the_terminal_has_no_password_to_change(stranger, tmp_path):
    from .test_server import serving, terminal

    path = tmp_path / "run" / "socket"
    async with serving(stranger.parts, socket_path=path), terminal(path) as session:
        answer = await session.get("/security")
        assert answer.status == 404 and "browser" in await answer.text()


async def test_secrets_have_no_repr(eve):
    found = await eve.site.parts.store.run(admins.secrets_of, "eve")
    new = sessions.NewSession(token="the token", csrf_token="c", is_by_link=False, address="", browser="")
    assert "argon2" not in repr(found) and "the token" not in repr(new)


def test_password_fields_hide_what_is_typed_and_welcome_password_managers():
    pages = "".join(path.read_text(encoding="utf-8") for path in templates_dir().glob("*.html"))
    fields = [
        field for field in re.findall(r"<input[^>]+>", pages) if 'type="password"' in field or "password" in field
    ]
    assert len(fields) >= 4
    for field in fields:
        assert 'type="password"' in field, field
        assert re.search(r'autocomplete="(current|new)-password"', field), field
