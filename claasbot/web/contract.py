"""What each route takes and answers, besides what follows from its rule: the one place where that is said.

`openapi.py` makes the schema of it, docs/api.md is made of that, and a test sends thousands of requests against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, create_model

from claasbot.domain.admin import AdminRole
from claasbot.services.backing_up import Contents
from claasbot.services.comparing import Compared
from claasbot.services.health import Status
from claasbot.storage.audit import Chain
from claasbot.web.admins import NewAdmin, NewKey, NewPassword, NewRole
from claasbot.web.api import BackupTo, PairingCode, Pause, Question
from claasbot.web.bodies import Number
from claasbot.web.events import AnyEvent
from claasbot.web.security import Code, Others, Password
from claasbot.web.sign_in import LinkFor, SignIn
from claasbot.web.step_up import Confirmation
from claasbot.web.webhook import Update


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    name: str
    text: str
    kind: Any = str
    place: Literal["path", "query"] = "path"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One success: JSON of a type, another content type, either, or nothing."""

    text: str
    json: Any = None
    content_type: str = ""
    location: bool = False
    """It sends the browser on."""
    leads_to: Mapping[str, str] = field(default_factory=dict)
    """What can be asked next: operation → its parameter that this answer knows, or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    summary: str
    answers: Mapping[int, Answer]
    query: tuple[Parameter, ...] = ()
    body: type[BaseModel] | None = None
    """JSON."""
    takes_forms: bool = False
    """A form brings `body` too, or stands for a request without one; the answer is the next page."""
    problems: Mapping[int, str] = field(default_factory=dict)
    """Refusals beside those that follow from the rule."""


PARAMETERS = {
    one.name: one
    for one in (
        Parameter(name="person_id", text="A person's number: 7 of p7.", kind=Number),
        Parameter(name="n", text="A version's number: 3 of p7.v3.", kind=Number),
        Parameter(name="experience_id", text="A piece of feedback that may teach.", kind=Number),
        Parameter(name="job_id", text="A lesson."),
        Parameter(name="error_id", text="A failure: the number that a person was told."),
        Parameter(name="name", text="A file of the page."),
        Parameter(name="session_id", text="A session.", kind=Number),
        Parameter(name="admin", text="An admin's name."),
        Parameter(name="key_id", text="An API key.", kind=Number),
        Parameter(name="platform", text="Where the bot account is: telegram."),
        Parameter(name="account", text="The bot account."),
    )
}


def problems_of(route: web.RouteDef, described: Described, access: str | None) -> dict[int, str]:
    """Every refusal that a route can answer with."""
    found = {500: "Something broke; the line names an error id that the log explains."}
    if access != "webhook":
        found[403] = "Not under this name, not for this visitor, or not from our own page."
    if "{" in route.path:
        found[404] = "There is nothing of that name or number, or it is not yours."
    if described.query:
        found[400] = "A parameter is wrong."
    if route.method != "GET":
        found |= {
            400: "The body is wrong.",
            408: "The body did not come in time.",
            413: "The body is too large.",
            415: "The body is packed.",
            429: "Too many changes in a short time; Retry-After says how many seconds to wait.",
        }
    if access == "webhook":
        del found[429]  # the secret is limit enough
    if access not in ("public", "webhook"):
        found[401] = "Nobody has signed in."
    if access != "public" or route.method != "GET":
        found[503] = "The store, the server or the chat does not answer now; try again."
    return found | dict(described.problems)


def _shape(name: str, /, **fields: Any) -> type[BaseModel]:
    """An answer's fields."""
    wanted: dict[str, Any] = {field: (kind, ...) for field, kind in fields.items()}
    return create_model(name, __config__=ConfigDict(extra="forbid"), **wanted)


def _page(summary: str, *query: Parameter, **more: Any) -> Described:
    return Described(
        summary=summary, query=query, answers={200: Answer(text="A page.", content_type="text/html")}, **more
    )


def _json(summary: str, text: str, kind: Any, **more: Any) -> Described:
    return Described(summary=summary, answers={200: Answer(text=text, json=kind)}, **more)


def _change(summary: str, text: str, kind: Any, **more: Any) -> Described:
    """Asked for by a program, or by a form that is sent on to a page."""
    answers = {
        200: Answer(text=text, json=kind),
        303: Answer(text="Done; to whoever sent a form.", location=True),
    }
    return Described(summary=summary, answers=answers, takes_forms=True, **more)


_PERSON = Parameter(name="person", text="Only theirs: a person's number.", kind=Number, place="query")
_BEFORE = Parameter(
    name="before",
    text="Older than that row: the number in the link to the next page.",
    kind=Number,
    place="query",
)
_BEFORE_LESSON = Parameter(name="before", text="Older than that lesson.", place="query")
_SEEN = Parameter(name="seen", text="A head of the audit that was kept: it must stand in the chain.", place="query")
_TOKEN = Parameter(name="token", text="The one-time token of the link.", place="query")

_BUTTON = _shape("Button", label=str, action=str)
_NOTICE = _shape(
    "Notice",
    message_key=str,
    at=str,
    completion_id=int | None,
    version_name=str | None,
    text=str,
    buttons=list[_BUTTON],  # type: ignore[valid-type]
    pressed=str | None,
    notice=bool,
    finish_reason=str | None,
    fell_back=bool,
    data=dict[str, Any],
)
_BECAME = _shape(
    "Became",
    kind=str,
    text=str,
    state=str | None,
    reason=str | None,
    job_id=str | None,
    is_withdrawn=bool,
    learned=str | None,
)
_TURN = _shape(
    "Turn",
    id=int,
    role=Literal["user", "assistant"],
    text=str,
    created_at=str,
    completion_id=int | None,
    version_name=str | None,
    finish_reason=str | None,
    message_key=str | None,
    feedback=list[_BECAME],  # type: ignore[valid-type]
)
_TRANSCRIPT = _shape(
    "Transcript",
    person_id=int | None,
    version_name=str,
    consent=str,
    turns=list[_TURN],  # type: ignore[valid-type]
    notices=list[_NOTICE],  # type: ignore[valid-type]
)
_ERROR = _shape(
    "Failure",
    id=int,
    error_id=str,
    at=str,
    last_at=str,
    person_id=int | None,
    place=str,
    kind=str,
    trace=str,
    n=int,
)
_ACT = _shape("Act", id=int, at=str, who=str, did=str)
_WAITING = _shape("Waiting", code=str, name=str, platform=str)
_LET_IN = _shape("LetIn", name=str, platform=str, is_told=bool, is_admin=bool)
_ADMIN = _shape("AnAdmin", admin_id=int, name=str, role=AdminRole, has_password=bool, has_second_factor=bool)
_KEY = _shape(
    "AKey",
    id=int,
    name=str,
    scopes=str,
    made_by=str,
    created_at=str,
    expires_at=str,
    last_used_at=str | None,
)
_LINK = _shape("Link", link=str)
_ON_SECURITY = {404: "The terminal needs no password."}


def _shown_once(summary: str, text: str, kind: Any, body: type[BaseModel] | None = None) -> Described:
    """JSON to a program; a page to whoever sent a form."""
    answers = {200: Answer(text=text, json=kind, content_type="text/html")}
    return Described(summary=summary, body=body, takes_forms=True, answers=answers)


def _security(summary: str, body: type[BaseModel] | None = None, *, shows: bool = False) -> Described:
    """A form of the Security page."""
    shown = {200: Answer(text="What is shown once.", content_type="text/html")}
    sent_on = {303: Answer(text="Done.", location=True)}
    answers = shown if shows else sent_on
    return Described(summary=summary, body=body, takes_forms=True, answers=answers, problems=_ON_SECURITY)


CONTRACT: Mapping[tuple[str, str], Described] = {
    ("GET", "/static/{name}"): Described(
        summary="A file of the pages.",
        answers={200: Answer(text="The file."), 304: Answer(text="You have it already.")},
    ),
    ("GET", "/healthz"): _json("Whether the process answers.", "It does.", _shape("Health", ok=bool)),
    ("GET", "/readyz"): Described(
        summary="Whether a message would be answered now.",
        answers={
            200: Answer(text="It would.", json=(ready := _shape("Readiness", ready=bool, down=list[str]))),
            503: Answer(text="A part is down.", json=ready),
        },
    ),
    ("GET", "/sign-in"): _page("Name and password, or the button behind a one-time link.", _TOKEN),
    ("POST", "/sign-in"): Described(
        summary="Open a session, by a one-time link or by name, password and code.",
        body=SignIn,
        takes_forms=True,
        answers={303: Answer(text="Signed in: a cookie is set.", location=True)},
    ),
    ("POST", "/sign-out"): Described(
        summary="End the session.", answers={303: Answer(text="It has ended.", location=True)}, takes_forms=True
    ),
    ("GET", "/"): _page("How things stand."),
    ("GET", "/playground"): _page("Chat in the browser."),
    ("GET", "/people"): _page("Everybody.", _BEFORE),
    ("GET", "/people/{person_id}"): _page("One person: versions, lessons, feedback."),
    ("GET", "/feedback"): _page("What people said about answers.", _PERSON, _BEFORE),
    ("GET", "/lessons"): _page(
        "Lessons and their numbers.", _PERSON, _BEFORE_LESSON, problems={404: "There is no lesson `before`."}
    ),
    ("GET", "/lessons/{job_id}"): _page("One lesson."),
    ("GET", "/metrics"): Described(
        summary="Counts and times for Prometheus.",
        answers={200: Answer(text="Its text format.", content_type="text/plain")},
    ),
    ("GET", "/errors"): _page("What nobody expected, by its number.", _BEFORE),
    ("GET", "/audit"): _page("What admins did, and whether the chain holds.", _BEFORE),
    ("GET", "/api/errors"): _json("What nobody expected.", "Newest first.", list[_ERROR], query=(_BEFORE,)),  # type: ignore[valid-type]
    ("GET", "/api/errors/{error_id}"): _json("One failure, by the number that a person was told.", "Where.", _ERROR),
    ("GET", "/api/audit"): _json(
        "What admins did, and whether the chain holds.",
        "Newest first.",
        _shape("Audit", rows=list[_ACT], chain=Chain),  # type: ignore[valid-type]
        query=(_BEFORE, _SEEN),
    ),
    ("GET", "/door"): _page("Who waits to be let in, and where the bot talks."),
    ("GET", "/security"): _page("Your password, second factor and sessions.", problems=_ON_SECURITY),
    ("POST", "/security/password"): _security("Set your password.", Password),
    ("POST", "/security/second-factor"): _security("Begin a second factor.", Confirmation, shows=True),
    ("POST", "/security/second-factor/confirm"): _security("It counts from now on.", Code, shows=True),
    ("POST", "/security/second-factor/off"): _security("It counts no more.", Confirmation),
    ("POST", "/security/sessions/{session_id}/end"): _security("End a session."),
    ("POST", "/security/sessions/end-others"): _security("End all your sessions but this one.", Others),
    ("GET", "/api/admins"): _json(
        "Who runs the bot.",
        "All of them.",
        list[_ADMIN],  # type: ignore[valid-type]
    ),
    ("POST", "/api/admins"): _shown_once("Add an admin.", "A link that signs them in once.", _LINK, NewAdmin),
    ("POST", "/api/admins/{admin}/link"): _shown_once(
        "A new link for an admin.", "It signs them in once.", _LINK, Confirmation
    ),
    ("POST", "/api/admins/{admin}/role"): _change(
        "Give an admin another role.", "Their role.", _shape("RoleNow", role=AdminRole), body=NewRole
    ),
    ("POST", "/api/admins/{admin}/remove"): _change("Remove an admin.", "Who it was.", _shape("Removed", removed=str)),
    ("POST", "/api/admins/{admin}/password"): _json(
        "Set an admin's password.", "It is set.", _shape("PasswordSet", password=str), body=NewPassword
    ),
    ("GET", "/api/keys"): _json(
        "API keys that open something.",
        "All of them, without what opens.",
        list[_KEY],  # type: ignore[valid-type]
    ),
    ("POST", "/api/keys"): _shown_once("Make an API key.", "The key, once.", _shape("NewKeyMade", key=str), NewKey),
    ("POST", "/api/keys/{key_id}/revoke"): _change("Revoke a key.", "Which.", _shape("Revoked", revoked=int)),
    ("POST", "/api/events"): Described(
        summary="Say, command, press, react or stop, as the person who is signed in.",
        body=AnyEvent,
        answers={
            202: Answer(text="Committed.", json=_shape("Accepted", accepted=str), leads_to={"get_api_transcript": ""})
        },
    ),
    ("GET", "/api/stream"): Described(
        summary="Server-sent events of the playground: hello, said, reply-started, …",
        answers={200: Answer(text="Frames, until the tab leaves.", content_type="text/event-stream")},
    ),
    ("GET", "/api/transcript"): Described(
        summary="The conversation that goes on.",
        answers={
            200: Answer(
                text="Turns, oldest first.",
                json=_TRANSCRIPT,
                leads_to={"get_people_person_id": "person_id", "post_api_people_person_id_undo": "person_id"},
            )
        },
    ),
    ("POST", "/api/compare"): _json(
        "The version before and the current one on one question.",
        "Two answers.",
        _shape("Comparison", question=str, before=Compared, now=Compared),
        body=Question,
        problems={404: "There is nothing to compare yet.", 502: "The server refused."},
    ),
    ("GET", "/api/export"): Described(
        summary="All that is stored about you.",
        answers={200: Answer(text="A zip: rows, conversations, adapter, hashes.", content_type="application/zip")},
        problems={404: "Nothing is stored about you."},
    ),
    ("POST", "/api/people/{person_id}/export"): Described(
        summary="All that is stored about somebody, for the host.",
        answers={200: Answer(text="A zip: rows, conversations, adapter, hashes.", content_type="application/zip")},
        problems={404: "There is no such person."},
    ),
    ("GET", "/api/status"): _json("Lights and queues.", "How things stand.", Status),
    ("GET", "/api/openapi.json"): _json("This description.", "OpenAPI 3.1.", dict[str, Any]),
    ("POST", "/api/learning"): _change(
        "Pause or resume all learning.", "As it is now.", _shape("Paused", paused=bool), body=Pause
    ),
    ("POST", "/api/train-now"): _change(
        "Start what waits, without debounce or cooldown.",
        "It has begun.",
        _shape("Started", started=bool),
        problems={409: "Not in this state."},
    ),
    ("POST", "/api/people/{person_id}/undo"): _change(
        "Take back a person's last lesson.",
        "What answers them now.",
        _shape("Undone", version=str),
        problems={409: "Not in this state."},
    ),
    ("POST", "/api/people/{person_id}/versions/{n}/roll-back"): _change(
        "Take back all that a person's adapter learned since a version; 0 is the base model.",
        "What answers them now.",
        _shape("RolledBack", version=str),
        problems={409: "Not in this state."},
    ),
    ("POST", "/api/people/{person_id}/lessons/{job_id}/revoke"): _change(
        "Take back any one lesson of a person.",
        "What answers them now; a version without the lesson follows when those after it are learned again.",
        _shape("Revoked", is_rebuilding=bool, version=str),
        problems={409: "Not in this state."},
    ),
    ("POST", "/api/people/{person_id}/feedback/{experience_id}/requeue"): _change(
        "Parked feedback waits for a lesson again.",
        "It waits.",
        _shape("Requeued", queued=int),
        problems={409: "It is not parked."},
    ),
    ("GET", "/api/strangers"): _json("Who waits to be let in.", "With their codes.", list[_WAITING]),  # type: ignore[valid-type]
    ("POST", "/api/pair"): _change(
        "Let a stranger in by their code.",
        "Who it was.",
        _LET_IN,
        body=PairingCode,
        problems={404: "Nobody has that code."},
    ),
    ("POST", "/webhooks/{platform}/{account}"): Described(
        summary="A platform brings an update; the secret in its own header is the key.",
        body=Update,
        answers={200: Answer(text="Committed.")},
        problems={403: "The secret is wrong."},
    ),
    ("POST", "/api/sign-in-link"): _json(
        "A new one-time link.", "The link.", _LINK, body=LinkFor, problems={404: "There is no such admin."}
    ),
    ("POST", "/api/backup"): _json(
        "Copy database and versions into a new folder.",
        "What is in it.",
        Contents,
        body=BackupTo,
    ),
}
