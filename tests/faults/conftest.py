"""Counts of the fault suite, added up over all of its tests: `make faults` ends with them as one JSON line.

`FAULTS=full` asks for the figures of the specification; without it every count is scaled down, never an assertion.
"""

from __future__ import annotations

import json
import os
from collections import Counter

import pytest

from tests.chat.telegram.conftest import fake  # noqa: F401 - a fixture
from tests.services.world import settings, store, world  # noqa: F401 - fixtures

IS_FULL = os.environ.get("FAULTS") == "full"
TOTALS = ("kills", "lost", "doubled", "torn", "duplicates", "unanswered")
"""Always in the last line; a test may add others, such as `updates`."""

_counts = pytest.StashKey[Counter[str]]()


def scaled(full: int, ci: int) -> int:
    """How often to do it: the figure of the specification, or what a build server has time for."""
    return full if IS_FULL else ci


def pytest_configure(config: pytest.Config) -> None:
    config.stash.setdefault(_counts, Counter(dict.fromkeys(TOTALS, 0)))


@pytest.fixture
def totals(request: pytest.FixtureRequest) -> Counter[str]:
    """Add to it before asserting, so that a failure is counted too: `totals["kills"] += 1`."""
    return request.config.stash.setdefault(_counts, Counter(dict.fromkeys(TOTALS, 0)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    counts = config.stash.get(_counts, None)
    if counts is not None and any(counts.values()):
        terminalreporter.write_line(json.dumps(counts))
