"""One link, one session. What the database holds opens no door."""

from __future__ import annotations

from claasbot.web.access import COOKIE
from claasbot.web.sign_in import new_sign_in_link


async def token_of(site) -> str:
    link = await new_sign_in_link(site.parts.store, site.parts.clock, "http://localhost:8176")
    assert link.startswith("http://localhost:8176/sign-in?token=")
    return link.partition("token=")[2]


async def post(site, token, **headers):
    return await site.http.post("/sign-in", data={"token": token}, headers=headers, allow_redirects=False)


async def test_looking_at_the_link_does_not_spend_it(stranger):
    token = await token_of(stranger)
    for _ in range(3):
        assert "Sign in here" in await stranger.page(f"/sign-in?token={token}")
    assert (await post(stranger, token)).status == 303
    assert (await stranger.http.get("/playground")).status == 200


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


async def test_a_guess_signs_nobody_in(stranger):
    await token_of(stranger)
    for guess in ("", "x", "' OR 1=1 --", "ä" * 50):
        assert (await post(stranger, guess)).status == 403


async def test_tokens_are_stored_as_hashes_only(stranger):
    token = await token_of(stranger)
    answer = await post(stranger, token)
    session = answer.cookies[COOKIE].value
    stored = "\n".join(await stranger.parts.store.run(lambda db: list(db.conn.iterdump())))
    assert "admin_session" in stored
    assert token not in stored and session not in stored
    assert len(token) >= 43 and len(session) >= 43  # 256 bits


async def test_the_cookie_is_out_of_reach(stranger):
    cookie = (await post(stranger, await token_of(stranger))).cookies[COOKIE]
    assert cookie["httponly"] and cookie["samesite"] == "Strict" and cookie["path"] == "/"
    assert not cookie["secure"]  # plain http on this machine


async def test_behind_tls_the_cookie_never_travels_in_the_clear(stranger):
    answer = await post(stranger, await token_of(stranger), **{"X-Forwarded-Proto": "https"})
    assert answer.cookies[COOKIE]["secure"]


async def test_signing_out_ends_the_session_on_the_server(site):
    stolen = {cookie.key: cookie.value for cookie in site.http.session.cookie_jar}
    answer = await site.post("/sign-out", allow_redirects=False)
    assert answer.status == 303
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
