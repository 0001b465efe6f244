"""Schemathesis against a running site: every described route, examples to stateful. `make fuzz` runs it at length.

Refuses the event stream, which never ends: `tests/web/test_openapi.py` looks at that one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, from_schema
from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished

from claasbot.web.openapi import document
from claasbot.web.server import ROUTES
from tests.fuzz.site import RunningSite

ENDLESS = "/api/stream"
ENDS_SESSIONS = ("/sign-out",)


@dataclass(slots=True)
class Outcome:
    """What came back."""

    n_cases: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest_s: list[float] = field(default_factory=list)

    @property
    def n_server_errors(self) -> int:
        return sum(count for status, count in self.statuses.items() if status >= 500)

    def p99_s(self) -> float:
        return sorted(self.slowest_s)[int(0.99 * (len(self.slowest_s) - 1))]

    def add(self, event: ScenarioFinished) -> None:
        for case_id, interaction in event.recorder.interactions.items():
            self.n_cases += 1
            self.phases[event.phase.value] += 1
            if interaction.response is not None:
                self.statuses[interaction.response.status_code] += 1
                self.slowest_s.append(interaction.response.elapsed)
            for check in event.recorder.checks.get(case_id, ()):
                if check.status is Status.FAILURE and check.failure_info is not None:
                    failure = check.failure_info
                    self.failures.append(f"{check.name}: {failure.failure.message}\n{failure.code_sample}")


class Visits:
    """The owner's session, opened anew when a request has ended it."""

    def __init__(self, site: RunningSite) -> None:
        self._site = site
        self.sign_in()

    def sign_in(self) -> None:
        self._headers = self._site.sign_in()

    def headers_for(self, path: str) -> dict[str, str]:
        return self._site.sign_in() if path in ENDS_SESSIONS else self._headers


def fuzz(site: RunningSite, *, n_each: int, seed: int) -> Outcome:
    """`n_each`: most generated requests for one route, besides those that its schema alone demands."""
    config = SchemathesisConfig.from_dict(
        {
            "seed": seed,
            "base-url": site.url,
            "request-timeout": 20,
            "continue-on-failure": True,
            "max-redirects": 0,
            "generation": {"max-examples": n_each, "database": "none", "with-security-parameters": False},
            "phases": {"stateful": {"generation": {"max-examples": max(2, n_each // 4)}}},
            "checks": {name: {"enabled": False} for name in _NOT_ASKED},
        }
    )
    schema = schemathesis.openapi.from_dict(document(ROUTES), config=config).exclude(path=ENDLESS)
    outcome = Outcome()
    with signed_in(Visits(site)):
        for event in from_schema(schema).execute():
            if isinstance(event, ScenarioFinished):
                outcome.add(event)
            elif isinstance(event, NonFatalError):
                outcome.failures.append(f"{event.label}: {event.info.format()}")
            elif isinstance(event, FatalError):
                raise event.exception
    return outcome


@contextmanager
def signed_in(visits: Visits) -> Iterator[None]:
    """Schemathesis knows hooks for calls only for the whole process."""

    @schemathesis.hook
    def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
        case.headers = {**(case.headers or {}), **visits.headers_for(case.operation.path)}

    @schemathesis.hook
    def after_call(context: Any, case: Any, response: Any) -> None:
        if response.status_code == 401:
            visits.sign_in()

    try:
        yield
    finally:
        schemathesis.hooks.unregister(before_call)
        schemathesis.hooks.unregister(after_call)


_NOT_ASKED = ("ignored_auth", "object_level_authorization", "missing_required_header", "positive_data_acceptance")
"""S-04 and S-05 have a matrix of their own: here every request is signed in. And what a text means, as a password or a
code, is judged by the services: a body that fits its schema may be refused."""
