"""What owners decide: who else runs the bot, and which programs may. For the Security page and `claasbot admin|key`.

Whoever opens a door for somebody shows once more that it is them; closing one needs no more than the session.
"""

from __future__ import annotations

import secrets
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated

from aiohttp import web
from pydantic import Field
from sqlite_utils import Database

from claasbot.domain.admin import SCOPES, Admin, AdminRole, Scope, checked_name
from claasbot.errors import BadInput
from claasbot.own_command import own_command
from claasbot.storage import admins, api_keys, audit, sessions
from claasbot.web.api import done, who
from claasbot.web.bodies import FORM, Body, body_of, json_of
from claasbot.web.open_streams import OPEN_STREAMS
from claasbot.web.pages import render
from claasbot.web.parts import PARTS
from claasbot.web.reading import person_number
from claasbot.web.sign_in import URL, new_sign_in_link
from claasbot.web.step_up import Confirmation, confirmed, show_it_is_them
from claasbot.web.visitor import key_ticket, session_ticket

_PAGE = "/security"
_TOKEN_BYTES = 32
KEY_PREFIX = "claasbot_"
"""Scanners for leaked secrets look for something to recognise."""


class NewAdmin(Confirmation):
    name: str
    role: AdminRole


class NewRole(Confirmation):
    role: AdminRole


class NewPassword(Body):
    password: str


class NewKey(Confirmation):
    name: Annotated[str, Field(min_length=1, max_length=60)]
    scope: Scope | None = None
    """One; a form can say no more."""
    scopes: tuple[Scope, ...] = ()
    days: Annotated[int, Field(ge=1, le=3650)] = 365


async def list_admins(request: web.Request) -> web.StreamResponse:
    found = await request.app[PARTS].store.run(admins.everybody)
    return web.json_response([asdict(one) for one in found])


async def add(request: web.Request) -> web.StreamResponse:
    """Answers with a link that signs them in once: no password passes through another's hands."""
    parts, given = request.app[PARTS], await body_of(request, NewAdmin)
    await show_it_is_them(request, given.password)
    name = checked_name(given.name)
    await parts.store.run(_add, name, given.role, who(request), parts.clock())
    return await _link(request, name)


def _add(db: Database, name: str, role: AdminRole, by: str, now: datetime) -> None:
    admins.first_owner(db, now)  # the first of all is an owner, whoever is added first
    admins.add(db, name, role, now)
    audit.add(db, by, f"admin: added as {role}", now, whom=f"playground:{name}")


async def link(request: web.Request) -> web.StreamResponse:
    """A new link for somebody who lost their password. Raises NotFound, BadInput for who has a second factor."""
    parts, name = request.app[PARTS], request.match_info["admin"]
    await confirmed(request)
    await parts.store.run(_note_link, name, who(request), parts.clock())
    return await _link(request, name)


def _note_link(db: Database, name: str, by: str, now: datetime) -> None:
    admin = admins.named(db, name)
    if admin.has_second_factor:  # whoever got hold of the link would be in without it
        raise BadInput(f"{name!r} has a second factor: run `{own_command(f'sign-in --name {name}')}` on the machine.")
    audit.add(db, by, "admin: new link", now, whom=f"playground:{admin.name}")


async def set_role(request: web.Request) -> web.StreamResponse:
    parts, given = request.app[PARTS], await body_of(request, NewRole)
    await show_it_is_them(request, given.password)
    ended = await parts.store.run(_set_role, request.match_info["admin"], given.role, who(request), parts.clock())
    request.app[OPEN_STREAMS].end(ended)
    return done(request, _PAGE, {"role": given.role})


def _set_role(db: Database, name: str, role: AdminRole, by: str, now: datetime) -> list[str]:
    """The tickets that open nothing any more."""
    admin = admins.named(db, name)
    keys = admins.set_role(db, admin, role, now)
    audit.add(db, by, f"admin: now {role}", now, whom=f"playground:{admin.name}")
    return [key_ticket(key) for key in keys]


async def remove(request: web.Request) -> web.StreamResponse:
    """Their sessions end at once."""
    parts, name = request.app[PARTS], request.match_info["admin"]
    ended = await parts.store.run(_remove, name, who(request), parts.clock())
    request.app[OPEN_STREAMS].end(ended)
    return done(request, _PAGE, {"removed": name})


def _remove(db: Database, name: str, by: str, now: datetime) -> list[str]:
    """The tickets that open nothing any more."""
    admin = admins.named(db, name)
    keys = admins.remove(db, admin, now)
    audit.add(db, by, "admin: removed", now, whom=f"playground:{admin.name}")
    ended = sessions.end_all_of(db, admin.admin_id)
    return [*(key_ticket(key) for key in keys), *(session_ticket(one) for one in ended)]


async def set_password(request: web.Request) -> web.StreamResponse:
    """For the terminal only: at the machine, nobody needs to know the old one. Every session of the admin ends."""
    parts, name = request.app[PARTS], request.match_info["admin"]
    given = await json_of(request, NewPassword)
    admin = await parts.store.run(admins.named, name)
    password_hash = await parts.passwords.hashed(given.password, of=admin.name)
    ended = await parts.store.run(_set_password, admin, password_hash, who(request), parts.clock())
    request.app[OPEN_STREAMS].end(session_ticket(one) for one in ended)
    return web.json_response({"password": "set"})


def _set_password(db: Database, admin: Admin, password_hash: str, by: str, now: datetime) -> list[int]:
    admins.set_password(db, admin.admin_id, password_hash)
    audit.add(db, by, "admin: password set", now, whom=f"playground:{admin.name}")
    return sessions.end_all_of(db, admin.admin_id)


async def list_keys(request: web.Request) -> web.StreamResponse:
    found = await request.app[PARTS].store.run(api_keys.everything)
    return web.json_response([dict(row) for row in found])


async def add_key(request: web.Request) -> web.StreamResponse:
    """Answers with the key: it is shown once."""
    parts, given = request.app[PARTS], await body_of(request, NewKey)
    await show_it_is_them(request, given.password)
    scopes: frozenset[Scope] = frozenset((*given.scopes, *([given.scope] if given.scope else ())))
    token = KEY_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
    if not scopes:
        raise BadInput(f"Say what the key is for: {', '.join(SCOPES)}.")
    await parts.store.run(_add_key, token, given.name, scopes, given.days, who(request), parts.clock())
    if request.content_type == FORM:
        return render(request, "shown_once.html", what="API key", lines=(token,), back=_PAGE)
    return web.json_response({"key": token})


def _add_key(db: Database, token: str, name: str, scopes: frozenset[Scope], days: int, by: str, now: datetime) -> None:
    key_id = api_keys.add(db, token, name, scopes, by, now, now + timedelta(days=days))
    audit.add(db, by, f"key {key_id}: made for {', '.join(sorted(scopes))}", now)


async def revoke_key(request: web.Request) -> web.StreamResponse:
    parts, key_id = request.app[PARTS], person_number(request.match_info["key_id"])
    await parts.store.run(_revoke_key, key_id, who(request), parts.clock())
    request.app[OPEN_STREAMS].end([key_ticket(key_id)])
    return done(request, _PAGE, {"revoked": key_id})


def _revoke_key(db: Database, key_id: int, by: str, now: datetime) -> None:
    api_keys.revoke(db, key_id, now)
    audit.add(db, by, f"key {key_id}: revoked", now)


async def _link(request: web.Request, name: str) -> web.StreamResponse:
    parts = request.app[PARTS]
    found = await new_sign_in_link(parts.store, parts.clock, request.app[URL](), name)
    if request.content_type == FORM:
        return render(request, "shown_once.html", what=f"link for {name}", lines=(found,), back=_PAGE)
    return web.json_response({"link": found})
