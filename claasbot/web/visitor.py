"""Who sent a request: nobody, an admin's browser, a program with a key, or the owner's terminal on the socket."""

from __future__ import annotations

import os
import pwd
import socket
import struct
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from aiohttp import web

from claasbot.domain.admin import Admin, AdminRole, ApiKey, Scope, may
from claasbot.storage import api_keys, sessions
from claasbot.storage.sessions import Session
from claasbot.web.cookies import session_token
from claasbot.web.parts import PARTS

_BEARER = "Bearer "


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Whoever it is, with what they came in by."""

    kind: Literal["nobody", "browser", "key", "socket"]
    account: str = ""
    """Theirs in the chat."""
    display_name: str = ""
    role: AdminRole | None = None
    scopes: frozenset[Scope] = frozenset()
    csrf_token: str = ""
    ticket: str = ""
    """Names the session or key: streams end with it."""
    session: Session | None = None

    def may(self, needed: AdminRole) -> bool:
        """Of people; a key is asked for its scopes."""
        return self.role is not None and may(self.role, needed)


NOBODY = Visitor(kind="nobody")
VISITOR = web.RequestKey("visitor", Visitor)


def over_socket(request: web.Request) -> Visitor | None:
    """The owner at the machine: the mode of the socket's file says so."""
    peer = request.transport.get_extra_info("socket") if request.transport is not None else None
    if peer is None or peer.family != socket.AF_UNIX:
        return None
    name = _unix_user(peer)
    return Visitor(kind="socket", account=f"local:{name}", display_name=name, role="owner")


async def by_key_or_session(request: web.Request) -> Visitor:
    """A request that shows a key is the key's, whatever cookies it brings. It is a use of the session or the key."""
    parts = request.app[PARTS]
    if key := _key_shown(request):
        found = await parts.store.run(api_keys.use, key, parts.clock())
        return NOBODY if found is None else _of_key(found)
    if not (token := session_token(request)):
        return NOBODY
    session = await parts.store.run(sessions.use, token, parts.clock(), idle_of(request))
    return NOBODY if session is None else _of_session(session)


async def is_still_good(request: web.Request) -> bool:
    """Of a stream that has been open for a while; this is no use of the session."""
    parts = request.app[PARTS]
    if request[VISITOR].kind == "socket":
        return True
    if key := _key_shown(request):
        return await parts.store.run(api_keys.key_of, key, parts.clock()) is not None
    token = session_token(request)
    return await parts.store.run(sessions.session_of, token, parts.clock(), idle_of(request)) is not None


def idle_of(request: web.Request) -> timedelta:
    return timedelta(minutes=request.app[PARTS].session_idle_minutes)


def me(request: web.Request) -> Admin | None:
    """The admin who sits at the browser; nobody behind a key or the socket."""
    session = request[VISITOR].session
    return None if session is None else session.admin


def session_ticket(session_id: int) -> str:
    return f"session {session_id}"


def key_ticket(key_id: int) -> str:
    return f"key {key_id}"


def _key_shown(request: web.Request) -> str:
    """Any other kind of authorization is a key that nobody has."""
    shown = request.headers.get("Authorization", "")
    return shown.removeprefix(_BEARER)


def _of_session(session: Session) -> Visitor:
    admin = session.admin
    return Visitor(
        kind="browser",
        account=admin.name,
        display_name=admin.name,
        role=admin.role,
        csrf_token=session.csrf_token,
        ticket=session_ticket(session.session_id),
        session=session,
    )


def _of_key(key: ApiKey) -> Visitor:
    """Its account has a colon, which no admin's name has: a key's chat is its own."""
    account = f"key:{key.key_id}"
    return Visitor(kind="key", account=account, display_name=key.name, scopes=key.scopes, ticket=key_ticket(key.key_id))


def _unix_user(peer: socket.socket) -> str:
    """Who is at the other end; where the kernel does not say, whoever may open our socket."""
    uid = os.getuid()
    if hasattr(socket, "SO_PEERCRED"):
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, uid, _ = struct.unpack("3i", credentials)
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
