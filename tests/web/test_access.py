"""Who may do what: a rule for every route, and no way round it (S-04, S-05, S-07, S-08)."""

from __future__ import annotations

from collections import defaultdict

import pytest

from claasbot.web.access import ACCESS
from claasbot.web.server import ROUTES, make_app

from .visitors import EVERYBODY, OUTSIDERS, headers_of, key_for, session_of

ROLES = ("viewer", "admin", "owner")
SIGNED_IN = [rule for rule, access in ACCESS.items() if access in (*ROLES, "metrics")]
CHANGES = [(method, path) for method, path in ACCESS if method != "GET"]
READS = [path for method, path in SIGNED_IN if method == "GET" and path != "/api/stream"]

MAY_OPEN = {
    "viewer": {"viewer", "admin", "owner"},
    "admin": {"admin", "owner"},
    "owner": {"owner"},
    "metrics": {"viewer", "admin", "owner", "metrics key"},
    "owner-socket": set(),
}
"""Written out on purpose, and not asked of the code that decides."""


def may_open(who: str, method: str, path: str) -> bool:
    access = ACCESS[method, path]
    allowed = set(MAY_OPEN[access])
    if path.startswith("/api/") and access == "viewer" and method == "GET":
        allowed.add("read key")
    if path.startswith("/api/") and access == "admin":
        allowed.add("write key")
    return who in allowed


def address(path: str) -> str:
    names = {"job_id": "none", "name": "site.css", "account": "42", "platform": "somewhere", "admin": "nobody"}
    return path.format_map(defaultdict(lambda: "1", names))


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
        ("POST", "/api/admins/{admin}/password"),
        ("POST", "/api/people/{person_id}/export"),
    }
    assert {rule for rule, access in ACCESS.items() if access == "webhook"} == {
        ("POST", "/webhooks/{platform}/{account}")
    }
    assert {path for (_, path), access in ACCESS.items() if access == "owner"} >= {
        "/api/admins",
        "/api/admins/{admin}/role",
        "/api/admins/{admin}/link",
        "/api/admins/{admin}/remove",
        "/api/keys",
        "/api/keys/{key_id}/revoke",
    }
    viewers_change = {path for (method, path), access in ACCESS.items() if access == "viewer" and method == "POST"}
    assert viewers_change == {
        "/sign-out",
        "/security/password",
        "/security/second-factor",
        "/security/second-factor/confirm",
        "/security/second-factor/off",
        "/security/sessions/{session_id}/end",
        "/security/sessions/end-others",
    }
    assert len(ROUTES) == len(ACCESS)


async def test_a_route_without_a_rule_answers_nobody(stranger):
    from aiohttp import web
    from aiohttp.test_utils import TestClient, TestServer

    app = make_app(stranger.parts)

    async def forgotten(request: web.Request) -> web.Response:
        return web.Response(text="secret")

    app.router.add_get("/api/forgotten", forgotten)
    async with TestClient(TestServer(app)) as http:
        for who in EVERYBODY:
            answer = await http.get("/api/forgotten", headers=await headers_of(stranger, who))
            assert (answer.status, "secret" in await answer.text()) == (403, False), who


@pytest.mark.parametrize(("method", "path"), SIGNED_IN)
async def test_each_route_opens_to_those_whom_its_rule_names_and_to_nobody_else(stranger, method, path):
    """Every route × everybody: 401 for who is nobody, 403 for who may not, anything else for who may."""
    for who in EVERYBODY:
        headers = await headers_of(stranger, who)
        stranger.asked.clear()
        stranger.accepted.clear()
        async with stranger.http.request(method, address(path), headers=headers, allow_redirects=False) as answer:
            status = answer.status
        expected = 401 if who in OUTSIDERS else 403
        if may_open(who, method, path):
            assert status not in (401, 403) and status < 500, (who, status)
        else:
            assert status == expected, (who, status)
            assert stranger.asked == stranger.accepted == [], who


async def test_who_is_nobody_is_told_how_to_come_in(stranger):
    answer = await stranger.http.get("/api/status")
    assert "claasbot sign-in" in await answer.text()
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_who_may_not_is_told_what_is_missing(stranger):
    as_viewer = await stranger.http.post("/api/train-now", headers=await headers_of(stranger, "viewer"))
    assert "Your role is viewer; this needs the role admin." in await as_viewer.text()
    by_key = await stranger.http.post("/api/train-now", headers=await headers_of(stranger, "read key"))
    assert "scope 'write'" in await by_key.text()
    page = await stranger.http.get("/people", headers=await headers_of(stranger, "write key"))
    assert "no pages" in await page.text()


async def test_a_session_ends_by_itself(site):
    for path in READS:
        assert (await site.http.get(address(path))).status in (200, 404), path
    site.later(hours=10, seconds=1)
    for path in READS:
        assert (await site.http.get(address(path))).status == 401, path


async def test_only_the_owner_at_the_machine_gets_a_link_to_sign_in(site):
    assert (await site.post("/api/sign-in-link")).status == 403


@pytest.mark.parametrize("token", [None, "guessed", "h\u00e4"])
async def test_no_change_without_the_pages_token(site, token):
    headers = {} if token is None else {"X-CSRF-Token": token}
    for method, path in CHANGES:
        if ACCESS[method, path] in ROLES:
            answer = await site.http.request(method, address(path), json={}, headers=headers)
            assert answer.status == 403, path
            assert site.asked == site.accepted == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://["},
    ],
    ids=str,
)
async def test_no_change_from_another_site_even_with_the_token(site, headers):
    for _, path in CHANGES:
        answer = await site.post(address(path), {}, headers=headers)
        assert answer.status == 403, path
        assert site.asked == site.accepted == []


async def test_a_change_from_our_own_page_is_taken(site):
    origin = str(site.http.make_url("/")).rstrip("/")
    answer = await site.post("/api/train-now", headers={"Origin": origin, "Sec-Fetch-Site": "same-origin"})
    assert (answer.status, site.asked) == (200, [("train_now",)])


async def test_a_program_with_a_key_needs_no_token_of_a_page_and_its_cookies_count_for_nothing(site):
    headers, _ = await key_for(site, ("write",))
    answer = await site.http.post("/api/train-now", headers=headers)
    assert (answer.status, site.asked) == (200, [("train_now",)])
    weaker, _ = await key_for(site, ("read",))
    assert (await site.http.post("/api/train-now", headers=weaker | {"X-CSRF-Token": site.csrf})).status == 403


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


@pytest.mark.parametrize("path", [path for (method, path) in ACCESS if method == "GET"])
async def test_looking_changes_nothing_but_when_one_was_seen(stranger, path):
    """The whole database before and after every GET, as an owner and as nobody (S-07)."""
    headers = await session_of(stranger, "eve", "owner")
    stranger.later(minutes=5)
    before = await stranger.parts.store.run(dump)
    for sent in ({}, headers):
        async with stranger.http.get(address(path), headers=sent) as answer:
            assert answer.status != 500
    after = await stranger.parts.store.run(dump)
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) <= 1
    for old, new in changed:
        assert old.startswith('INSERT INTO "admin_session"')
        assert new == old[: old.rindex(SEEN)] + SEEN.replace("12:00", "12:05") + old[old.rindex(SEEN) + len(SEEN) :]


SEEN = "2026-11-20T12:00:00.000000+00:00"


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


async def test_every_response_is_locked_down(site):
    for path in [*(address(path) for method, path in ACCESS if method == "GET"), "/nothing"]:
        async with site.http.get(path) as answer:
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy and "script-src 'self';" in policy and "style-src 'self';" in policy
            assert "unsafe" not in policy and "frame-ancestors 'none'" in policy and "base-uri 'none'" in policy
            assert "object-src 'none'" in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "same-origin"
            assert answer.headers["Server"] == "claasbot"
            assert ("no-store" in answer.headers["Cache-Control"]) == (not path.startswith("/static"))
            assert "Strict-Transport-Security" not in answer.headers  # plain http on this machine


async def test_behind_tls_browsers_are_told_to_stay_there(stranger):
    answer = await stranger.http.get("/sign-in", headers={"X-Forwarded-Proto": "https"})
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"


@pytest.mark.parametrize("name", ["..%2flayout.html", "%2e%2e/layout.html", "site.css%00", "layout.html", "SITE.CSS"])
async def test_only_the_shipped_static_files_are_served(stranger, name):
    assert (await stranger.http.get(f"/static/{name}")).status == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD"])
async def test_other_methods_are_refused(site, method):
    assert (await site.http.request(method, "/api/status")).status == 405
