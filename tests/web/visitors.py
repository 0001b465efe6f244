"""Everybody who may come to a site, as the headers that they send: sessions and keys are put into the store."""

from __future__ import annotations

import secrets
from datetime import timedelta

from sqlite_utils import Database

from claasbot.domain.admin import AdminRole, Scope
from claasbot.storage import admins, api_keys, sessions
from claasbot.storage.sessions import NewSession
from claasbot.web.cookies import COOKIE

from .conftest import Site

PEOPLE: tuple[AdminRole, ...] = ("viewer", "admin", "owner")
SCOPES: tuple[Scope, ...] = ("read", "write", "metrics")
OUTSIDERS = ("nobody", "ended", "idle", "removed", "guessed", "revoked key", "expired key", "guessed key", "basic")
KEYS = tuple(f"{scope} key" for scope in SCOPES)
EVERYBODY = (*OUTSIDERS, *PEOPLE, *KEYS)

Headers = dict[str, str]


async def headers_of(site: Site, who: str) -> Headers:
    """`who` is one of EVERYBODY."""
    kind = who.rpartition(" ")[2]
    if kind == "key":
        return await _with_key(site, who.partition(" ")[0])
    match who:
        case "viewer" | "admin" | "owner":
            return await session_of(site, f"the-{who}", who)
        case "ended":
            return await session_of(site, "ended", "owner", expires_in=timedelta(seconds=-1))
        case "idle":
            return await session_of(site, "idle", "owner", opened_ago=timedelta(days=1))
        case "removed":
            headers = await session_of(site, "removed", "admin")
            await site.parts.store.run(lambda db: admins.remove(db, admins.named(db, "removed"), site.now))
            return headers
    return _MADE_UP[who]


_MADE_UP = {
    "nobody": {"X-CSRF-Token": "guessed"},
    "guessed": {"Cookie": f"{COOKIE}=guessed", "X-CSRF-Token": "guessed"},
    "basic": {"Authorization": "Basic b3duZXI6cGFzc3dvcmQ="},
}


async def _with_key(site: Site, which: str) -> Headers:
    if which == "guessed":
        return {"Authorization": "Bearer claasbot_guessed"}
    if which == "expired":
        return (await key_for(site, SCOPES, days=0))[0]
    if which == "revoked":
        headers, key_id = await key_for(site, SCOPES)
        await site.parts.store.run(api_keys.revoke, key_id, site.now)
        return headers
    return (await key_for(site, (which,)))[0]  # type: ignore[arg-type]


async def session_of(
    site: Site,
    name: str,
    role: AdminRole,
    *,
    opened_ago: timedelta = timedelta(0),
    expires_in: timedelta = timedelta(hours=1),
    is_by_link: bool = False,
) -> Headers:
    """A new session of an admin, who is made where there is none."""
    new = NewSession(
        token=secrets.token_urlsafe(32),
        csrf_token=secrets.token_urlsafe(32),
        is_by_link=is_by_link,
        address="192.0.2.7",
        browser="a test",
    )

    def add(db: Database) -> None:
        admins.first_owner(db, site.now)
        if name not in {admin.name for admin in admins.everybody(db)}:
            admins.add(db, name, role, site.now)
        admin_id = admins.named(db, name).admin_id
        sessions.add_session(db, admin_id, new, site.now - opened_ago, site.now + expires_in)

    await site.parts.store.run(add)
    return {"Cookie": f"{COOKIE}={new.token}", "X-CSRF-Token": new.csrf_token}


async def key_for(site: Site, scopes: tuple[Scope, ...], *, days: int = 1) -> tuple[Headers, int]:
    """Its headers and its number."""
    token = secrets.token_urlsafe(32)
    key_id = await site.parts.store.run(
        api_keys.add, token, "a key", frozenset(scopes), "owner", site.now, site.now + timedelta(days=days)
    )
    return {"Authorization": f"Bearer {token}"}, key_id
