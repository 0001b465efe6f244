"""How an admin signs in: their password, second factor and sessions. Owners also see admins, keys and all sessions.

Whoever changes how they sign in shows once more that it is them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import segno
from aiohttp import web
from markupsafe import Markup
from sqlite_utils import Database

from claasbot.domain.admin import ROLES, SCOPES, Admin
from claasbot.domain.password import MIN_CHARS, RECOMMENDED_CHARS
from claasbot.errors import BadInput, NotFound
from claasbot.services.second_factor import address_for, new_recovery_codes, new_secret, normal, step_of
from claasbot.storage import admins, api_keys, audit, sessions
from claasbot.storage.digests import digest
from claasbot.storage.rows import Row
from claasbot.storage.sessions import Session
from claasbot.web.bodies import Body, Flag, body_of
from claasbot.web.open_streams import OPEN_STREAMS
from claasbot.web.pages import render
from claasbot.web.parts import PARTS
from claasbot.web.reading import person_number
from claasbot.web.step_up import confirmed, is_free_to_change, show_it_is_them
from claasbot.web.visitor import VISITOR, idle_of, me, session_ticket

_PAGE = "/security"


class Password(Body):
    """The present one, where there is one, and the new one twice."""

    password: str = ""
    new_password: str
    again: str


class Code(Body):
    """Of the authenticator app."""

    code: str


class Others(Body):
    """Whose sessions end: one's own, or everybody's, of which an owner decides."""

    everybody: Flag = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityPage:
    sessions: list[Session]
    n_recovery_codes: int
    admins: list[Admin]
    keys: list[Row]


async def show(request: web.Request) -> web.StreamResponse:
    parts, admin = request.app[PARTS], _admin(request)
    found = await parts.store.run(_read, admin, parts.clock(), idle_of(request))
    return render(
        request,
        "security.html",
        found=found,
        me=admin,
        here=request[VISITOR].session,
        is_free_to_change=is_free_to_change(request),
        roles=ROLES,
        scopes=SCOPES,
        min_chars=MIN_CHARS,
        recommended_chars=RECOMMENDED_CHARS,
    )


def _read(db: Database, admin: Admin, now: datetime, idle: timedelta) -> SecurityPage:
    is_owner = admin.role == "owner"
    return SecurityPage(
        sessions=sessions.open_now(db, None if is_owner else admin.admin_id, now, idle),
        n_recovery_codes=admins.n_recovery_codes(db, admin.admin_id),
        admins=admins.everybody(db) if is_owner else [],
        keys=api_keys.everything(db) if is_owner else [],
    )


async def set_password(request: web.Request) -> web.StreamResponse:
    """Every other session of the admin ends: whoever had the old password is out."""
    parts, admin, given = request.app[PARTS], _admin(request), await body_of(request, Password)
    if given.new_password != given.again:
        raise BadInput("The two new passwords differ: type the same one twice.")
    await show_it_is_them(request, given.password)
    password_hash = await parts.passwords.hashed(given.new_password, of=admin.name)
    here = request[VISITOR].session
    assert here is not None
    ended = await parts.store.run(_change_password, admin, password_hash, here.session_id, parts.clock())
    request.app[OPEN_STREAMS].end(session_ticket(one) for one in ended)
    raise web.HTTPSeeOther(_PAGE)


def _change_password(db: Database, admin: Admin, password_hash: str, here: int, now: datetime) -> list[int]:
    admins.set_password(db, admin.admin_id, password_hash)
    audit.add(db, f"playground:{admin.name}", "own password: changed", now)
    return sessions.end_all_of(db, admin.admin_id, but=here)


async def begin_second_factor(request: web.Request) -> web.StreamResponse:
    """Shows the secret once. It counts from the first right code on."""
    parts, admin = request.app[PARTS], _admin(request)
    if not admin.has_password:
        raise BadInput("Set a password first: the code is asked for beside it.")
    await confirmed(request)
    secret = new_secret()
    await parts.store.run(_begin, admin, secret, parts.clock())
    drawn = segno.make(address_for(secret, admin.name), error="m").svg_inline(scale=5, light="#fff")
    return render(request, "second_factor.html", secret=secret, drawn=Markup(drawn))  # noqa: S704 - made by segno


def _begin(db: Database, admin: Admin, secret: str, now: datetime) -> None:
    if admin.has_second_factor:
        raise BadInput("There is a second factor already: turn it off first.")
    admins.begin_second_factor(db, admin.admin_id, secret)
    audit.add(db, f"playground:{admin.name}", "own second factor: begun", now)


async def confirm_second_factor(request: web.Request) -> web.StreamResponse:
    """Recovery codes are shown once, and stored as hashes. After a wrong code the same secret waits for another."""
    parts, admin, given = request.app[PARTS], _admin(request), await body_of(request, Code)
    codes = new_recovery_codes()
    code_hashes = tuple(digest(normal(code)) for code in codes)
    if not await parts.store.run(_confirm, admin, given.code, code_hashes, parts.clock()):
        return render(request, "second_factor.html", secret="", drawn="", http_status=400)
    return render(request, "shown_once.html", what="recovery codes", lines=codes, back=_PAGE)


def _confirm(db: Database, admin: Admin, code: str, code_hashes: tuple[str, ...], now: datetime) -> bool:
    secrets = admins.secrets_of(db, admin.name)
    if secrets is None or not secrets.totp_secret or admin.has_second_factor:
        raise BadInput("No second factor is being set up: begin again on the Security page.")
    step = step_of(secrets.totp_secret, code, now)
    if step is None or not admins.spend_step(db, admin.admin_id, step):
        return False
    admins.confirm_second_factor(db, admin.admin_id, code_hashes, now)
    audit.add(db, f"playground:{admin.name}", "own second factor: on", now)
    return True


async def drop_second_factor(request: web.Request) -> web.StreamResponse:
    parts, admin = request.app[PARTS], _admin(request)
    await confirmed(request)
    await parts.store.run(_drop, admin, parts.clock())
    raise web.HTTPSeeOther(_PAGE)


def _drop(db: Database, admin: Admin, now: datetime) -> None:
    admins.forget_second_factor(db, admin.admin_id)
    audit.add(db, f"playground:{admin.name}", "own second factor: off", now)


async def end_session(request: web.Request) -> web.StreamResponse:
    """One's own, or as an owner anybody's; any other is as missing as one that never was."""
    parts, admin = request.app[PARTS], _admin(request)
    session_id = person_number(request.match_info["session_id"])
    await parts.store.run(_end, admin, session_id, parts.clock())
    request.app[OPEN_STREAMS].end([session_ticket(session_id)])
    raise web.HTTPSeeOther(_PAGE)


def _end(db: Database, admin: Admin, session_id: int, now: datetime) -> None:
    sessions.end(db, session_id, None if admin.role == "owner" else admin.admin_id)
    audit.add(db, f"playground:{admin.name}", f"session {session_id}: ended", now)


async def end_other_sessions(request: web.Request) -> web.StreamResponse:
    """But never this one: whoever asks sees what came of it."""
    parts, admin, here = request.app[PARTS], _admin(request), request[VISITOR].session
    assert here is not None
    everybody = (await body_of(request, Others)).everybody
    if everybody and admin.role != "owner":
        raise web.HTTPForbidden(text=f"Your role is {admin.role}; this needs the role owner.")
    ended = await parts.store.run(_end_others, admin, here.session_id, everybody, parts.clock())
    request.app[OPEN_STREAMS].end(session_ticket(one) for one in ended)
    raise web.HTTPSeeOther(_PAGE)


def _end_others(db: Database, admin: Admin, here: int, everybody: bool, now: datetime) -> list[int]:
    whose = "everybody's" if everybody else "own other"
    audit.add(db, f"playground:{admin.name}", f"{whose} sessions: ended", now)
    if everybody:
        return sessions.end_all(db, here)
    return sessions.end_all_of(db, admin.admin_id, but=here)


def _admin(request: web.Request) -> Admin:
    """Raises NotFound for the terminal: it needs no password."""
    admin = me(request)
    if admin is None:
        raise NotFound("The terminal signs in by the mode of the socket's file; open this page in a browser.")
    return admin
