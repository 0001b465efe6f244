"""What happened since a look before, for whoever watches. Reads by key, and nothing about whom.

Counting what is new, not what is there, keeps the counts from falling when rows are erased or outlive their days.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlite_utils import Database

from claasbot.domain.completion import BASE
from claasbot.storage.rows import Row, rows, the


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How far somebody has looked."""

    completion_id: int
    feedback_id: int
    error_id: int
    inbox_id: int
    job_row: int
    open_inbox: tuple[int, ...]
    """Looked at, and not handled then."""
    open_jobs: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    answers: list[Row]
    """platform, is_adapter, n_tokens, first_token_s, total_s."""
    messages: list[Row]
    """Handled: platform, is_problem."""
    feedback: list[Row]
    """kind."""
    lessons: list[Row]
    """Ended: state, verdict_json, seconds_json."""
    n_errors: int
    experiences: dict[str, int]
    """How many are in each state now."""
    versions: dict[str, int]


def begin(db: Database) -> Mark:
    """From here on."""
    last = the(
        db,
        "mark",
        "SELECT (SELECT coalesce(max(id), 0) FROM completion) AS completion_id,"
        " (SELECT coalesce(max(id), 0) FROM feedback_event) AS feedback_id,"
        " (SELECT coalesce(max(id), 0) FROM error) AS error_id,"
        " (SELECT coalesce(max(id), 0) FROM inbox) AS inbox_id,"
        " (SELECT coalesce(max(rowid), 0) FROM job) AS job_row",
    )
    open_inbox = tuple(row["id"] for row in rows(db, "SELECT id FROM inbox WHERE handled_at IS NULL"))
    open_jobs = tuple(row["n"] for row in rows(db, "SELECT rowid AS n FROM job WHERE state IN ('leased', 'trained')"))
    return Mark(**last, open_inbox=open_inbox, open_jobs=open_jobs)


def since(db: Database, mark: Mark) -> tuple[News, Mark]:
    """What is new since the mark, and the next one."""
    news = News(
        answers=rows(
            db,
            "SELECT platform, version_name != ? AS is_adapter, json_array_length(token_ids_json) AS n_tokens,"
            " first_token_s, total_s FROM completion WHERE id > ?",
            BASE,
            mark.completion_id,
        ),
        messages=rows(
            db,
            "SELECT platform, error != '' AS is_problem FROM inbox WHERE handled_at IS NOT NULL"
            " AND (id > ? OR id IN (SELECT value FROM json_each(?)))",
            mark.inbox_id,
            json.dumps(mark.open_inbox),
        ),
        feedback=rows(db, "SELECT kind FROM feedback_event WHERE id > ?", mark.feedback_id),
        lessons=rows(
            db,
            "SELECT state, verdict_json, seconds_json FROM job WHERE state NOT IN ('leased', 'trained')"
            " AND (rowid > ? OR rowid IN (SELECT value FROM json_each(?)))",
            mark.job_row,
            json.dumps(mark.open_jobs),
        ),
        n_errors=int(the(db, "count", "SELECT count(*) AS n FROM error WHERE id > ?", mark.error_id)["n"]),
        experiences=_by_state(db, "experience"),
        versions=_by_state(db, "adapter_version"),
    )
    return news, begin(db)


def _by_state(db: Database, table: str) -> dict[str, int]:
    found = rows(db, f"SELECT state, count(*) AS n FROM {table} GROUP BY state")  # noqa: S608
    return {row["state"]: row["n"] for row in found}
