"""What nobody expected: where, of which kind, how often. Never holds a value that was at hand."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlite_utils import Database

from claasbot.storage.rows import Row, change, insert, one, rows, text_of, the

KEPT = 1_000
LASTS = timedelta(days=30)


def add(
    db: Database,
    error_id: str,
    at: datetime,
    *,
    place: str,
    kind: str,
    trace: str,
    inbox_id: int | None = None,
    is_quoted: bool = False,
) -> None:
    """`is_quoted`: somebody was told this id. What nobody was told and happens again is counted, not kept once more.

    The same failure is stored once, however often it is brought.
    """
    if one(db, "SELECT 1 FROM error WHERE error_id = ?", error_id) is not None:
        return
    if not is_quoted and change(
        db,
        "UPDATE error SET n = n + 1, last_at = ? WHERE trace = ? AND id = (SELECT max(id) FROM error WHERE place = ?)",
        text_of(at), trace, place,
    ):  # fmt: skip
        return
    insert(
        db, "error", error_id=error_id, at=text_of(at), last_at=text_of(at), place=place, kind=kind, trace=trace,
        person_id=_person_of(db, inbox_id),
    )  # fmt: skip


def found(db: Database, error_id: str) -> Row:
    """Raises NotFound."""
    return the(db, f"error {error_id[:20]!r}", "SELECT * FROM error WHERE error_id = ?", error_id.strip().lower())


def latest(db: Database, limit: int = 100, before: int | None = None) -> list[Row]:
    """Newest first; `before`: older than the row of that id."""
    sql = "SELECT * FROM error WHERE id < ? ORDER BY id DESC LIMIT ?"
    return rows(db, sql, 2**62 if before is None else before, limit)


def prune(db: Database, now: datetime) -> int:
    """Keep the newest, and none for ever; returns how many went."""
    newest = "SELECT id FROM error ORDER BY id DESC LIMIT ?"
    return change(
        db, f"DELETE FROM error WHERE last_at < ? OR id NOT IN ({newest})", text_of(now - LASTS), KEPT  # noqa: S608
    )  # fmt: skip


def _person_of(db: Database, inbox_id: int | None) -> int | None:
    row = one(
        db,
        "SELECT account.person_id FROM inbox JOIN account USING (platform, account) WHERE inbox.id = ?",
        inbox_id,
    )
    return None if row is None else int(row["person_id"])
