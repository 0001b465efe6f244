"""The ways in: a link once, a password at a time. What the database holds opens no door (S-06, S-07, S-09)."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
from aiohttp.test_utils import TestClient, TestServer
from multidict import CIMultiDict

from claasbot.storage import admins, audit
from claasbot.web.cookies import COOKIE, HOST_COOKIE
from claasbot.web.server import make_app
from claasbot.web.sign_in import new_sign_in_link

from .visitors import session_of

GOOD = "drei Enten am Fluss"
BY_TLS = {"X-Forwarded-Proto": "https"}


async def token_of(site, name: str = "") -> str:
    link = await new_sign_in_link(site.parts.store, site.parts.clock, "http://localhost:8176", name)
    assert link.startswith("http://localhost:8176/sign-in?token=")
    return link.partition("token=")[2]


async def post(site, token, **headers):
    return await site.http.post("/sign-in", data={"token": token}, headers=headers, allow_redirects=False)


async def type_in(site, name: str = "eve", password: str = GOOD, code: str = "", headers=None):  # type: ignore[no-untyped-def]
    form = {"name": name, "password": password, "code": code}
    return await site.http.post("/sign-in", data=form, headers=headers, allow_redirects=False)


async def add_eve(site) -> None:
    await site.parts.store.run(admins.first_owner, site.now)
    eve = await site.parts.store.run(admins.add, "eve", "admin", site.now)
    password_hash = await site.parts.passwords.hashed(GOOD, of="eve")
    await site.parts.store.run(admins.set_password, eve.admin_id, password_hash)


async def dumped(site) -> str:
    return "\n".join(await site.parts.store.run(lambda db: list(db.conn.iterdump())))


async def test_looking_at_the_link_does_not_spend_it(stranger):
    token = await token_of(stranger)
    for _ in range(3):
        assert "Sign in here" in await stranger.page(f"/sign-in?token={token}")
    assert (await post(stranger, token)).status == 303
    assert (await stranger.http.get("/playground")).status == 200


async def test_the_first_link_makes_the_owner_who_has_no_password(stranger):
    """No account is there before, and none that a guess could open."""
    assert await stranger.parts.store.run(admins.everybody) == []
    await stranger.sign_in()
    [owner] = await stranger.parts.store.run(admins.everybody)
    assert (owner.name, owner.role, owner.has_password) == ("admin", "owner", False)
    await stranger.sign_in()
    assert len(await stranger.parts.store.run(admins.everybody)) == 1


async def test_a_link_may_be_for_somebody(stranger):
    await add_eve(stranger)
    assert (await post(stranger, await token_of(stranger, "eve"))).status == 303
    assert "signed in as <strong>eve</strong>" in await stranger.page("/security")


async def test_a_link_signs_in_once(stranger):
    token = await token_of(stranger)
    assert (await post(stranger, token)).status == 303
    stranger.http.session.cookie_jar.clear()
    refused = await post(stranger, token)
    assert refused.status == 403
    assert "claasbot sign-in" in await refused.text()
    assert COOKIE not in refused.cookies


async def test_a_link_is_good_for_a_day(stranger):
    young, old = await token_of(stranger), await token_of(stranger)
    stranger.later(hours=23, minutes=59)
    assert (await post(stranger, young)).status == 303
    stranger.later(minutes=2)
    assert (await post(stranger, old)).status == 403


async def test_the_link_of_somebody_who_was_removed_opens_nothing(stranger):
    await add_eve(stranger)
    token = await token_of(stranger, "eve")
    await stranger.parts.store.run(lambda db: admins.remove(db, admins.named(db, "eve"), stranger.now))
    assert (await post(stranger, token)).status == 403


async def test_a_guess_signs_nobody_in(stranger):
    await token_of(stranger)
    for guess in ("", "x", "' OR 1=1 --", "ä" * 50):
        assert (await post(stranger, guess)).status == 403


async def test_name_and_password_sign_in(stranger):
    await add_eve(stranger)
    assert (await type_in(stranger)).status == 303
    assert (await stranger.http.get("/playground")).status == 200


async def test_who_is_wrong_learns_nothing_of_what_was(stranger):
    """The same page for a wrong name, a wrong password and a wrong code (S-09)."""
    await add_eve(stranger)
    pages = [await (await type_in(stranger, *given)).text() for given in (("nobody", GOOD), ("eve", "wrong, but long"))]
    assert pages[0] == pages[1] and "Name, password or code is wrong." in pages[0]
    assert GOOD not in pages[0] and "nobody" not in pages[0]


async def test_too_many_tries_are_told_what_else_there_is(stranger):
    await add_eve(stranger)
    statuses = [(await type_in(stranger, password="wrong, but long")).status for _ in range(11)]
    assert statuses == [403] * 10 + [429]
    assert "claasbot sign-in" in await (await type_in(stranger)).text()
    assert (await post(stranger, await token_of(stranger))).status == 303


async def test_a_proxy_counts_people_apart_and_a_stranger_cannot_say_where_he_is(stranger):
    """Only whom the host trusts is believed about addresses; of the chain, only what he added himself."""
    await add_eve(stranger)
    for _ in range(11):
        answer = await type_in(stranger, password="wrong", headers={"X-Forwarded-For": "203.0.113.5, 198.51.100.9"})
    assert answer.status == 429
    spoofed = {"X-Forwarded-For": "192.0.2.1, 198.51.100.9"}
    assert (await type_in(stranger, headers=spoofed)).status == 429
    assert (await type_in(stranger, headers={"X-Forwarded-For": "127.0.0.1"})).status == 303


async def test_from_another_machine_a_password_alone_opens_nothing(stranger):
    """A second factor where somebody can guess from afar; the link is possession of the machine."""
    await add_eve(stranger)
    from_afar = {"X-Forwarded-For": "192.0.2.1"}
    answer = await type_in(stranger, headers=from_afar)
    assert answer.status == 403
    assert "From another machine a code is always needed." in await answer.text()
    assert (await type_in(stranger)).status == 303


@pytest.mark.parametrize(
    "headers",
    [
        [("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-For", "192.0.2.1")],
        [("X-Forwarded-For", "127.0.0.1, 192.0.2.1:4711")],
        [("X-Forwarded-For", "127.0.0.1, unknown")],
        [("X-Forwarded-Proto", "https")],
    ],
    ids=["a header of its own", "with a port", "in a word", "not at all"],
)
async def test_however_a_proxy_says_for_whom_it_asks_a_stranger_is_never_from_here(stranger, headers):
    """HAProxy adds a header behind the browser's own, others add a port or hide the address."""
    await add_eve(stranger)
    assert (await type_in(stranger, headers=CIMultiDict(headers))).status == 403


async def test_behind_a_proxy_that_nobody_named_a_password_alone_opens_nothing(stranger):
    """It runs on this machine, and whom it asks for does not."""
    await add_eve(stranger)
    async with TestClient(TestServer(make_app(dataclasses.replace(stranger.parts, trusted_proxies=())))) as http:
        form = {"name": "eve", "password": GOOD}
        for headers, status in (({"X-Forwarded-For": "127.0.0.1"}, 403), ({}, 303)):
            answer = await http.post("/sign-in", data=form, headers=headers, allow_redirects=False)
            assert answer.status == status


async def test_tokens_are_stored_as_hashes_only(stranger):
    token = await token_of(stranger)
    answer = await post(stranger, token)
    session = answer.cookies[COOKIE].value
    stored = await dumped(stranger)
    assert "admin_session" in stored
    assert token not in stored and session not in stored
    assert len(token) >= 43 and len(session) >= 43  # 256 bits


async def test_a_password_is_stored_as_an_argon2id_hash_only(stranger):
    await add_eve(stranger)
    stored = await dumped(stranger)
    assert "$argon2id$" in stored and GOOD not in stored


async def test_every_sign_in_gets_a_token_of_its_own_and_a_planted_one_opens_nothing(stranger):
    planted = {"Cookie": f"{COOKIE}=planted"}
    tokens = set()
    for _ in range(5):
        form = {"token": await token_of(stranger)}
        answer = await stranger.http.post("/sign-in", data=form, headers=planted, allow_redirects=False)
        tokens.add(answer.cookies[COOKIE].value)
        stranger.http.session.cookie_jar.clear()
    assert len(tokens) == 5 and "planted" not in tokens
    assert (await stranger.http.get("/api/status", headers=planted)).status == 401


async def test_the_cookie_is_out_of_reach(stranger):
    cookie = (await post(stranger, await token_of(stranger))).cookies[COOKIE]
    assert cookie["httponly"] and cookie["samesite"] == "Strict" and cookie["path"] == "/"
    assert not cookie["secure"]  # plain http on this machine
    assert int(cookie["max-age"]) == 10 * 3600


async def test_behind_tls_the_cookie_is_bound_to_the_host_and_never_travels_in_the_clear(stranger):
    answer = await post(stranger, await token_of(stranger), **BY_TLS)
    cookie = answer.cookies[HOST_COOKIE]
    assert HOST_COOKIE == "__Host-claasbot_session"
    assert cookie["secure"] and cookie["httponly"] and cookie["samesite"] == "Strict"
    assert cookie["path"] == "/" and not cookie["domain"]
    token = cookie.value
    stranger.http.session.cookie_jar.clear()
    for name, headers, status in (
        (HOST_COOKIE, BY_TLS, 200),
        (COOKIE, BY_TLS, 401),  # a page without TLS could have set that one
        (HOST_COOKIE, {}, 401),
    ):
        sent = headers | {"Cookie": f"{name}={token}"}
        assert (await stranger.http.get("/api/status", headers=sent)).status == status, (name, headers)


async def test_a_page_without_tls_signs_nobody_in_over_tls(stranger):
    """Whoever sits on the way writes the plain page of the same host, and would plant a session of their own."""
    await add_eve(stranger)
    host = f"{stranger.http.host}:{stranger.http.port}"
    for scheme, status in (("http", 403), ("https", 303)):
        answer = await type_in(
            stranger, headers=BY_TLS | {"Origin": f"{scheme}://{host}", "X-Forwarded-For": "127.0.0.1"}
        )
        assert answer.status == status


async def test_only_a_trusted_proxy_is_believed_about_tls(stranger):
    app = make_app(dataclasses.replace(stranger.parts, trusted_proxies=()))
    async with TestClient(TestServer(app)) as http:
        answer = await http.get("/sign-in", headers=BY_TLS)
        assert "Strict-Transport-Security" not in answer.headers
        form = {"token": await token_of(stranger)}
        answer = await http.post("/sign-in", data=form, headers=BY_TLS, allow_redirects=False)
        assert COOKIE in answer.cookies and HOST_COOKIE not in answer.cookies


@pytest.mark.parametrize(("minutes", "status"), [(29, 200), (31, 401)])
async def test_a_session_that_nobody_looks_at_ends(stranger, minutes, status):
    app = make_app(dataclasses.replace(stranger.parts, session_idle_minutes=30))
    headers = await session_of(stranger, "eve", "owner")
    async with TestClient(TestServer(app)) as http:
        stranger.later(minutes=minutes)
        assert (await http.get("/api/status", headers=headers)).status == status


async def test_looking_keeps_a_session_until_it_has_lasted_long_enough(stranger):
    """Idle 30 minutes, 12 hours at most (S-06)."""
    app = make_app(dataclasses.replace(stranger.parts, session_idle_minutes=30))
    headers = await session_of(stranger, "eve", "owner", expires_in=timedelta(hours=12))
    async with TestClient(TestServer(app)) as http:
        statuses = []
        for _ in range(30):
            stranger.later(minutes=25)
            statuses.append((await http.get("/api/status", headers=headers)).status)
    assert statuses == [200] * 28 + [401] * 2  # 28 × 25 minutes are 11 h 40


async def test_a_clock_that_is_set_back_prolongs_no_session(stranger):
    """R-22: else a session would last as much longer as the clock went back."""
    headers = await session_of(stranger, "eve", "owner")
    stranger.later(hours=-1)
    assert (await stranger.http.get("/api/status", headers=headers)).status == 401


async def test_signing_out_ends_the_session_on_the_server(site):
    stolen = {cookie.key: cookie.value for cookie in site.http.session.cookie_jar}
    answer = await site.post("/sign-out", allow_redirects=False)
    assert answer.status == 303
    assert answer.headers["Clear-Site-Data"] == '"cache", "storage"'
    site.http.session.cookie_jar.clear()
    assert (await site.http.get("/api/transcript", cookies=stolen)).status == 401


async def test_links_and_sessions_that_are_over_leave_the_database(stranger):
    def left(db):
        return [db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("sign_in_token", "admin_session")]

    await post(stranger, await token_of(stranger))
    await token_of(stranger)
    assert await stranger.parts.store.run(left) == [2, 1]
    stranger.later(hours=24, seconds=1)  # links last a day, sessions ten hours
    await token_of(stranger)
    assert await stranger.parts.store.run(left) == [1, 0]


async def test_signing_in_again_ends_the_session_before(site):
    stolen = {cookie.key: cookie.value for cookie in site.http.session.cookie_jar}
    await site.sign_in()
    site.http.session.cookie_jar.clear()
    assert (await site.http.get("/api/transcript", cookies=stolen)).status == 401


async def test_every_way_in_and_every_refusal_is_written_down(stranger):
    await add_eve(stranger)
    await post(stranger, await token_of(stranger))
    await type_in(stranger, password="wrong, but long")
    await type_in(stranger)
    written = [(row["who"], row["did"]) for row in await stranger.parts.store.run(audit.latest)]
    assert written == [
        ("playground:eve", "sign-in: by password"),
        ("playground:eve", "sign-in: refused"),
        ("playground:admin", "sign-in: by a link"),
    ]
