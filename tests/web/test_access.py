"""Who may do what: a rule for every route, and no way round it."""

from __future__ import annotations

import pytest

from claasbot.web.access import ACCESS
from claasbot.web.server import ROUTES, make_app

SIGNED_IN = [rule for rule, access in ACCESS.items() if access == "signed-in"]
CHANGES = [(method, path) for method, path in ACCESS if method != "GET"]
READS = [path for method, path in SIGNED_IN if method == "GET" and path != "/api/stream"]


def address(path: str) -> str:
    names = {"person_id": "1", "job_id": "none", "name": "site.css", "experience_id": "1", "account": "42"}
    names["platform"] = "somewhere"
    return path.format(**names)


async def test_every_route_has_a_rule_and_every_rule_a_route(stranger):
    app = make_app(stranger.parts)
    routed = {(route.method, route.resource.canonical) for route in app.router.routes()}
    assert routed == set(ACCESS)


def test_the_rules_are_these():
    """Written out twice on purpose: loosening one must show in a diff of this test."""
    public = {path for (_, path), access in ACCESS.items() if access == "public"}
    assert public == {"/static/{name}", "/sign-in", "/healthz", "/readyz"}
    assert {rule for rule, access in ACCESS.items() if access == "owner-socket"} == {
        ("POST", "/api/sign-in-link"),
        ("POST", "/api/backup"),
    }
    assert {rule for rule, access in ACCESS.items() if access == "webhook"} == {
        ("POST", "/webhooks/{platform}/{account}")
    }
    assert len(ROUTES) == len(ACCESS)


async def test_a_route_without_a_rule_answers_nobody(site):
    from aiohttp import web
    from aiohttp.test_utils import TestClient, TestServer

    app = make_app(site.parts)

    async def forgotten(request: web.Request) -> web.Response:
        return web.Response(text="secret")

    app.router.add_get("/api/forgotten", forgotten)
    async with TestClient(TestServer(app), cookie_jar=site.http.session.cookie_jar) as http:
        answer = await http.get("/api/forgotten")
        assert (answer.status, "secret" in await answer.text()) == (403, False)


@pytest.mark.parametrize(("method", "path"), SIGNED_IN)
async def test_nobody_is_let_in_without_a_session(stranger, method, path):
    answer = await stranger.http.request(method, address(path), headers={"X-CSRF-Token": "guessed"})
    assert answer.status == 401
    assert "claasbot sign-in" in await answer.text()
    assert stranger.asked == stranger.accepted == []


@pytest.mark.parametrize("path", READS)
async def test_a_session_ends_by_itself(site, path):
    assert (await site.http.get(address(path))).status in (200, 404)
    site.later(hours=10, seconds=1)
    assert (await site.http.get(address(path))).status == 401


async def test_only_the_owner_gets_a_link_to_sign_in(site):
    assert (await site.post("/api/sign-in-link")).status == 403


@pytest.mark.parametrize(("method", "path"), [rule for rule in CHANGES if ACCESS[rule] == "signed-in"])
@pytest.mark.parametrize("token", [None, "guessed", "h\u00e4"])
async def test_no_change_without_the_pages_token(site, method, path, token):
    headers = {} if token is None else {"X-CSRF-Token": token}
    answer = await site.http.request(method, address(path), json={}, headers=headers)
    assert answer.status == 403
    assert site.asked == site.accepted == []


@pytest.mark.parametrize(("method", "path"), CHANGES)
@pytest.mark.parametrize("origin", ["cross-site", "same-site"])
async def test_no_change_from_another_site_even_with_the_token(site, method, path, origin):
    answer = await site.post(address(path), {}, headers={"Sec-Fetch-Site": origin})
    assert answer.status == 403
    assert site.asked == site.accepted == []


async def test_a_form_carries_the_token_in_a_field(site):
    form = {"csrf_token": site.csrf, "paused": "yes"}
    answer = await site.http.post("/api/learning", data=form, allow_redirects=False)
    assert (answer.status, answer.headers["Location"], site.asked) == (303, "/", [("set_paused", True)])


@pytest.mark.parametrize("path", ["/sign-in", "/static/site.css"])
async def test_what_everybody_may_see_asks_nothing_of_the_store(site, path):
    """Or any cookie of a stranger would keep the one writer busy."""
    await site.parts.store.close()
    assert (await site.http.get(path)).status == 200
    assert (await site.http.get("/api/transcript")).status == 503


@pytest.mark.parametrize("path", READS)
async def test_reading_changes_nothing(site, path):
    before = await site.parts.store.run(dump)
    await site.http.get(address(path))
    assert await site.parts.store.run(dump) == before


def dump(db) -> list[str]:  # type: ignore[no-untyped-def]
    return list(db.conn.iterdump())


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8176", "127.0.0.1:9", "[::1]:80", "192.168.1.5", "bot.example.org"]
)
async def test_we_answer_under_our_own_names(stranger, host):
    assert (await stranger.http.get("/sign-in", headers={"Host": host})).status == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "[evil]", ""])
async def test_a_name_that_was_pointed_at_us_is_refused(site, host):
    answer = await site.http.get("/api/transcript", headers={"Host": host})
    assert answer.status == 403


@pytest.mark.parametrize(
    "path", ["/", "/playground", "/sign-in", "/static/site.css", "/nothing", "/api/status", "/lessons/none"]
)
async def test_every_response_is_locked_down(site, path):
    answer = await site.http.get(path)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy and "style-src 'self';" in policy
    assert "unsafe" not in policy and "frame-ancestors 'none'" in policy and "base-uri 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Server"] == "claasbot"
    assert ("no-store" in answer.headers["Cache-Control"]) == (not path.startswith("/static"))


@pytest.mark.parametrize("name", ["..%2flayout.html", "%2e%2e/layout.html", "site.css%00", "layout.html", "SITE.CSS"])
async def test_only_the_shipped_static_files_are_served(stranger, name):
    assert (await stranger.http.get(f"/static/{name}")).status == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD"])
async def test_other_methods_are_refused(site, method):
    assert (await site.http.request(method, "/api/status")).status == 405
