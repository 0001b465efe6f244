"""The web server in the bot's event loop: a TCP port for browsers, a Unix socket for the owner's terminal."""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy

from claasbot.errors import PortInUse, SettingsError
from claasbot.services.signing_in import SigningIn
from claasbot.web import admins, api, dashboard, metrics, openapi, pages, probes, records, security, sign_in, webhook
from claasbot.web.access import add_headers, guard
from claasbot.web.open_streams import OPEN_STREAMS, OpenStreams
from claasbot.web.pace import PACE, Pace, paced
from claasbot.web.parts import PARTS, WebParts
from claasbot.web.problems import MAX_BODY_BYTES, access_log, problems, withheld

_SHUTDOWN_S = 3.0
_IDLE_S = 75.0
"""A connection that brings no whole request for so long is closed: aiohttp would wait an hour."""

ROUTES: tuple[web.RouteDef, ...] = (
    web.get("/static/{name}", pages.serve_static, allow_head=False),
    web.get("/healthz", probes.healthz, allow_head=False),
    web.get("/readyz", probes.readyz, allow_head=False),
    web.get("/metrics", metrics.serve, allow_head=False),
    web.get("/sign-in", sign_in.show, allow_head=False),
    web.post("/sign-in", sign_in.enter),
    web.post("/sign-out", sign_in.sign_out),
    web.get("/", dashboard.overview, allow_head=False),
    web.get("/playground", dashboard.playground, allow_head=False),
    web.get("/people", dashboard.everybody, allow_head=False),
    web.get("/people/{person_id}", dashboard.one_person, allow_head=False),
    web.get("/feedback", dashboard.all_feedback, allow_head=False),
    web.get("/lessons", dashboard.all_lessons, allow_head=False),
    web.get("/lessons/{job_id}", dashboard.one_lesson, allow_head=False),
    web.post("/api/events", api.post_event),
    web.get("/api/stream", api.get_stream, allow_head=False),
    web.get("/api/transcript", api.get_transcript, allow_head=False),
    web.post("/api/compare", api.post_compare),
    web.get("/api/export", api.get_export, allow_head=False),
    web.get("/api/status", api.get_status, allow_head=False),
    web.get("/api/openapi.json", openapi.serve, allow_head=False),
    web.post("/api/learning", api.post_learning),
    web.post("/api/train-now", api.post_train_now),
    web.post("/api/people/{person_id}/undo", api.post_undo),
    web.post("/api/people/{person_id}/versions/{n}/roll-back", api.post_roll_back),
    web.post("/api/people/{person_id}/lessons/{job_id}/revoke", api.post_revoke),
    web.post("/api/sign-in-link", sign_in.link),
    web.get("/door", dashboard.door, allow_head=False),
    web.get("/errors", records.errors_page, allow_head=False),
    web.get("/audit", records.audit_page, allow_head=False),
    web.get("/api/errors", records.get_errors, allow_head=False),
    web.get("/api/errors/{error_id}", records.get_error, allow_head=False),
    web.get("/api/audit", records.get_audit, allow_head=False),
    web.get("/api/strangers", api.get_strangers, allow_head=False),
    web.post("/api/pair", api.post_pair),
    web.post("/api/backup", api.post_backup),
    web.post("/api/people/{person_id}/feedback/{experience_id}/requeue", api.post_requeue),
    web.post("/api/people/{person_id}/export", api.post_export_of),
    web.post("/webhooks/{platform}/{account}", webhook.receive),
    web.get("/security", security.show, allow_head=False),
    web.post("/security/password", security.set_password),
    web.post("/security/second-factor", security.begin_second_factor),
    web.post("/security/second-factor/confirm", security.confirm_second_factor),
    web.post("/security/second-factor/off", security.drop_second_factor),
    web.post("/security/sessions/end-others", security.end_other_sessions),
    web.post("/security/sessions/{session_id}/end", security.end_session),
    web.get("/api/admins", admins.list_admins, allow_head=False),
    web.post("/api/admins", admins.add),
    web.post("/api/admins/{admin}/role", admins.set_role),
    web.post("/api/admins/{admin}/link", admins.link),
    web.post("/api/admins/{admin}/remove", admins.remove),
    web.post("/api/admins/{admin}/password", admins.set_password),
    web.get("/api/keys", admins.list_keys, allow_head=False),
    web.post("/api/keys", admins.add_key),
    web.post("/api/keys/{key_id}/revoke", admins.revoke_key),
)


def make_app(parts: WebParts, url: Callable[[], str] = lambda: "http://localhost") -> web.Application:
    """`url` says where a browser finds the app: known only once it listens."""
    app = web.Application(middlewares=(access_log, withheld, problems, guard, paced), client_max_size=MAX_BODY_BYTES)
    app[PARTS] = parts
    app[PACE] = Pace(parts.writes_per_minute)
    app[openapi.DOCUMENT] = openapi.document(ROUTES)
    app[pages.TEMPLATES] = pages.environment()
    app[pages.STATIC] = pages.static_files()
    app[sign_in.URL] = url
    app[sign_in.SIGNING_IN] = SigningIn(parts.store, parts.clock, parts.passwords)
    app[OPEN_STREAMS] = OpenStreams()
    app.add_routes(ROUTES)
    app.on_response_prepare.append(add_headers)
    app.on_startup.append(metrics.begin)
    app.on_shutdown.append(_end_streams)
    return app


async def _end_streams(app: web.Application) -> None:
    app[PARTS].playground.close()
    app[PARTS].console.close()


class _NoStrangersBytes(logging.Filter):
    """aiohttp logs what is no HTTP with a traceback and the bytes themselves: strangers could fill the log with it."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


_HTTP_LOG = logging.getLogger("claasbot.web.http")
_HTTP_LOG.addFilter(_NoStrangersBytes())


class WebServer:
    """Listens from `start` to `stop`."""

    def __init__(
        self,
        parts: WebParts,
        *,
        host: str,
        port: int,
        socket_path: Path | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Port 0 takes any free one; without `socket_path` there is no terminal, without `tls` it speaks plain http."""
        self._host = host
        self._port = port
        self._socket_path = socket_path
        self._tls = tls
        self._runner = web.AppRunner(
            make_app(parts, lambda: self.url),
            access_log=None,
            shutdown_timeout=_SHUTDOWN_S,
            handle_signals=False,
            keepalive_timeout=_IDLE_S,
            auto_decompress=False,  # in the event loop, and all of a bomb, whatever is refused meanwhile
            logger=_HTTP_LOG,
        )

    @property
    def url(self) -> str:
        """For people on this machine."""
        host = "127.0.0.1" if self._host in ("0.0.0.0", "::", "") else self._host  # noqa: S104 - compared, not bound
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self._port}"

    async def start(self) -> None:
        """Raises PortInUse, or SettingsError for an address that cannot be listened on."""
        check_parser()
        await self._runner.setup()
        try:
            await self._listen()
            if self._socket_path is not None:
                await web.SockSite(self._runner, _private_socket(self._socket_path)).start()
        except BaseException:
            await self._runner.cleanup()
            raise

    async def stop(self) -> None:
        await self._runner.cleanup()
        if self._socket_path is not None:
            self._socket_path.unlink(missing_ok=True)

    async def _listen(self) -> None:
        try:
            await web.TCPSite(self._runner, self._host, self._port, ssl_context=self._tls).start()
        except OSError as error:
            raise _cannot_listen(self._host, self._port, error) from error
        if self._port == 0:
            self._port = self._runner.addresses[0][1]


def check_parser() -> None:
    """Raises SettingsError where aiohttp parses in Python: that lets requests be smuggled (CVE-2025-69224)."""
    if HttpRequestParser is HttpRequestParserPy:
        raise SettingsError(
            "aiohttp runs without its compiled HTTP parser; unset AIOHTTP_NO_EXTENSIONS or install it from a wheel"
        )


def check_web_port(host: str, port: int) -> None:
    """Raises what `start` would, long before it is called: PortInUse or SettingsError."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error


def _cannot_listen(host: str, port: int, error: OSError) -> PortInUse | SettingsError:
    if error.errno == errno.EADDRINUSE:
        return PortInUse(f"port {port} on {host!r} is taken; stop the other program or set web.port")
    return SettingsError(f"cannot listen on {host!r}, port {port}: {error.strerror}; set web.host and web.port")


def _private_socket(path: Path) -> socket.socket:
    """Bound with mode 0600 from its first moment: who may open the file is the owner."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_stale(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
    except OSError as error:
        listening.close()
        raise SettingsError(
            f"the socket {str(path)!r} cannot be made: {error}; set CLAASBOT_DATA to a folder with a shorter path"
        ) from error
    finally:
        os.umask(before)
    return listening


def _remove_stale(path: Path) -> None:
    """A crash leaves the file behind. Raises PortInUse when somebody answers on it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            path.unlink(missing_ok=True)
        except OSError:
            return
        else:
            raise PortInUse(f"another claasbot answers on {str(path)!r}; stop it first")
