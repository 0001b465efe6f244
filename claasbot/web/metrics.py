"""/metrics for Prometheus: what the rows and the lights say, counted since the bot started.

A registry of its own. No label ever holds a person, a chat or a text: each value is one of those in `METERS`, or
`other`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, get_args

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from claasbot.domain.adapter import VersionState
from claasbot.domain.experience import ExperienceState
from claasbot.domain.feedback import FeedbackKind
from claasbot.domain.job import stage_seconds
from claasbot.errors import StoreError
from claasbot.services.health import Status
from claasbot.storage import tallies
from claasbot.storage.rows import Row
from claasbot.web.lesson_view import STAGES
from claasbot.web.parts import PARTS, WebParts

OTHER = "other"
_LOOK = timedelta(seconds=2)
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_LONG_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_UNIT_SECONDS = (0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
_PLATFORMS = ("telegram", "discord", "playground", "console")
_REASONS = {
    "it could not be served": "not served",
    "the step was not finite": "not finite",
    "nothing changed": "nothing changed",
    "server and trainer disagree": "mismatch",
    "moved from the parent": "too far from the parent",
    "moved from the base": "too far from the base",
    "pushed an earlier lesson away": "earlier lesson lost",
    "the server serves other weights": "other weights served",
    "the loaded slot does not hold": "other weights served",
    "the server still answers like": "other weights served",
    "a sample answer repeats itself": "collapsed",
    "sample answers are empty": "collapsed",
    "the answer to a question that asks how": "collapsed",
}
"""How the gate's reasons begin, and the class that each is of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """One metric: `claasbot_<name>`, with all that its labels can be."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    buckets: tuple[float, ...] = _SECONDS

    @property
    def shown_name(self) -> str:
        return f"claasbot_{self.name}{'_total' if self.kind == 'counter' else ''}"


_PLATFORM: Mapping[str, tuple[str, ...]] = {"platform": _PLATFORMS}
_POLICY: Mapping[str, tuple[str, ...]] = {"policy": ("base", "adapter")}

METERS = (
    Meter(name="answers", kind="counter", text="Answers completed", labels={**_PLATFORM, **_POLICY}),
    Meter(name="tokens", kind="counter", text="Tokens of answers", labels={**_PLATFORM, **_POLICY}),
    Meter(name="first_token_seconds", kind="histogram", text="From the request to the first token", labels=_POLICY),
    Meter(
        name="answer_seconds", kind="histogram", text="From the request to the last token", labels=_POLICY,
        buckets=_LONG_SECONDS,
    ),
    Meter(
        name="messages", kind="counter", text="Updates handled; `problem`: the person was told why not",
        labels={**_PLATFORM, "outcome": ("done", "problem")},
    ),
    Meter(name="feedback", kind="counter", text="Feedback noted", labels={"kind": get_args(FeedbackKind)}),
    Meter(
        name="lessons", kind="counter", text="Jobs ended",
        labels={"outcome": ("promoted", "rejected", "dead", "abandoned")},
    ),
    Meter(
        name="lesson_seconds", kind="histogram", text="Where the time of a lesson went",
        labels={"part": STAGES}, buckets=_LONG_SECONDS,
    ),
    Meter(
        name="rejections", kind="counter", text="Reasons for which the gate rejected candidates",
        labels={"reason": tuple(dict.fromkeys(_REASONS.values()))},
    ),
    Meter(name="errors", kind="counter", text="Failures that nobody expected; `claasbot errors` lists them"),
    Meter(name="experiences", kind="gauge", text="Experiences by state", labels={"state": get_args(ExperienceState)}),
    Meter(name="versions", kind="gauge", text="Adapter versions by state", labels={"state": get_args(VersionState)}),
    Meter(
        name="waiting", kind="gauge", text="Rows that wait at the hand-offs",
        labels={"queue": ("inbox", "lessons", "outbox")},
    ),
    Meter(
        name="light", kind="gauge", text="1 while a part works, 0 while it is down; of several accounts the worst",
        labels={"part": ("server", "trainer", "store", "bot", "telegram", "discord")},
    ),
    Meter(name="learning", kind="gauge", text="1 while the bot learns, 0 while that is paused"),
    Meter(name="adapters_loaded", kind="gauge", text="Adapters that the server holds for the bot"),
    Meter(name="store_unit_seconds", kind="histogram", text="One unit of work in the store", buckets=_UNIT_SECONDS),
    Meter(name="store_bytes", kind="gauge", text="Size of the database file"),
)  # fmt: skip


class Metrics:
    """Looks at the rows when it is asked, and at most every two seconds."""

    def __init__(self, parts: WebParts) -> None:
        self._parts = parts
        self._registry = CollectorRegistry()
        kinds: dict[str, Callable[[Meter], Counter | Gauge | Histogram]] = {
            "counter": lambda one: Counter(f"claasbot_{one.name}", one.text, one.labels, registry=self._registry),
            "gauge": lambda one: Gauge(f"claasbot_{one.name}", one.text, one.labels, registry=self._registry),
            "histogram": lambda one: Histogram(
                f"claasbot_{one.name}", one.text, one.labels, registry=self._registry, buckets=one.buckets
            ),
        }
        self._meters = {one.name: (one, kinds[one.kind](one)) for one in METERS}
        ProcessCollector(registry=self._registry)
        self._mark: tallies.Mark | None = None
        self._looked_at: datetime | None = None

    async def begin(self) -> None:
        """What happened before is not counted."""
        self._parts.store.on_unit = self._histogram("store_unit_seconds").observe
        self._mark = await self._parts.store.run(tallies.begin)

    async def text(self) -> bytes:
        """In Prometheus' text format 0.0.4. A store in trouble leaves its counts as they were."""
        now = self._parts.clock()
        if self._looked_at is None or not timedelta() <= now - self._looked_at < _LOOK:
            self._looked_at = now
            self._show(await self._parts.status())
            with suppress(StoreError):
                await self._look()
        return generate_latest(self._registry)

    async def _look(self) -> None:
        if self._mark is None:
            await self.begin()
        assert self._mark is not None
        news, self._mark = await self._parts.store.run(tallies.since, self._mark)
        for row in news.answers:
            self._count_answer(row)
        for row in news.messages:
            outcome = "problem" if row["is_problem"] else "done"
            self._counter("messages", platform=row["platform"], outcome=outcome).inc()
        for row in news.feedback:
            self._counter("feedback", kind=row["kind"]).inc()
        for row in news.lessons:
            self._count_lesson(row)
        self._counter("errors").inc(news.n_errors)
        for name, found in (("experiences", news.experiences), ("versions", news.versions)):
            for state in self._meters[name][0].labels["state"]:
                self._gauge(name, state=state).set(found.get(state, 0))

    def _count_answer(self, row: Row) -> None:
        policy = "adapter" if row["is_adapter"] else "base"
        self._counter("answers", platform=row["platform"], policy=policy).inc()
        self._counter("tokens", platform=row["platform"], policy=policy).inc(row["n_tokens"])
        self._histogram("first_token_seconds", policy=policy).observe(row["first_token_s"])
        self._histogram("answer_seconds", policy=policy).observe(row["total_s"])

    def _count_lesson(self, row: Row) -> None:
        self._counter("lessons", outcome=row["state"]).inc()
        for part, seconds in stage_seconds(json.loads(row["seconds_json"])).items():
            self._histogram("lesson_seconds", part=part).observe(seconds)
        if row["state"] == "rejected":
            for reason in json.loads(row["verdict_json"] or "[]"):
                self._counter("rejections", reason=reason_class(reason)).inc()

    def _show(self, status: Status) -> None:
        for queue in ("inbox", "lessons", "outbox"):
            self._gauge("waiting", queue=queue).set(getattr(status.queues, queue))
        worst: dict[str, int] = {}
        for light in status.lights:
            part = light.name.partition(" ")[0]
            worst[part] = min(worst.get(part, 1), light.state != "down")
        for part, works in ({"bot": 1} | worst).items():
            self._gauge("light", part=part).set(works)
        self._gauge("learning").set(status.is_learning)
        self._gauge("adapters_loaded").set(self._parts.n_adapters())
        path = self._parts.store.path
        with suppress(OSError):
            self._gauge("store_bytes").set(0 if path is None else path.stat().st_size)

    def _counter(self, name: str, **labels: str) -> Counter:
        found = self._labelled(name, labels)
        assert isinstance(found, Counter)
        return found

    def _gauge(self, name: str, **labels: str) -> Gauge:
        found = self._labelled(name, labels)
        assert isinstance(found, Gauge)
        return found

    def _histogram(self, name: str, **labels: str) -> Histogram:
        found = self._labelled(name, labels)
        assert isinstance(found, Histogram)
        return found

    def _labelled(self, name: str, labels: Mapping[str, str]) -> Counter | Gauge | Histogram:
        meter, metric = self._meters[name]
        if not labels:
            return metric
        known = {label: value if value in meter.labels[label] else OTHER for label, value in labels.items()}
        return metric.labels(**known)


METRICS = web.AppKey("metrics", Metrics)


async def begin(app: web.Application) -> None:
    """At the start of the site."""
    app[METRICS] = Metrics(app[PARTS])
    with suppress(StoreError):
        await app[METRICS].begin()


async def serve(request: web.Request) -> web.StreamResponse:
    body = await request.app[METRICS].text()
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


def reason_class(reason: str) -> str:
    """What kind of reason the gate had, without its numbers."""
    return next((found for start, found in _REASONS.items() if reason.startswith(start)), OTHER)


def as_markdown() -> str:
    """The table of docs/operations.md."""
    lines = ["| metric | kind | what it is | labels |", "| --- | --- | --- | --- |"]
    for one in METERS:
        labels = "; ".join(f"`{name}`: {', '.join(values)}" for name, values in one.labels.items())
        lines.append(f"| `{one.shown_name}` | {one.kind} | {one.text} | {labels or '–'} |")
    return "\n".join(lines)
