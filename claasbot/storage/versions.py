"""Adapter versions and the pointer that says which one answers."""

from __future__ import annotations

from datetime import datetime

from sqlite_utils import Database

from claasbot.domain.adapter import AdapterVersion, VersionState, moved
from claasbot.errors import NotFound
from claasbot.storage.rows import Row, change, insert, one, rows, text_of, the


def next_n(db: Database, person_id: int) -> int:
    """The number of the person's next version; never given out twice."""
    row = the(db, f"person p{person_id}", "SELECT next_version_n FROM person WHERE id = ?", person_id)
    change(db, "UPDATE person SET next_version_n = next_version_n + 1 WHERE id = ?", person_id)
    return int(row["next_version_n"])


def add_candidate(
    db: Database,
    *,
    person_id: int,
    n: int,
    parent_id: int | None,
    job_id: str,
    folder: str,
    weights_sha256: str,
    base_revision: str,
    now: datetime,
) -> AdapterVersion:
    """The candidate of a job; the same one if the job's outcome was recorded before."""
    known = one(db, "SELECT * FROM adapter_version WHERE job_id = ?", job_id)
    if known is not None:
        return _version(known)
    version_id = insert(
        db,
        "adapter_version",
        person_id=person_id,
        n=n,
        parent_id=parent_id,
        job_id=job_id,
        state="candidate",
        folder=folder,
        weights_sha256=weights_sha256,
        base_revision=base_revision,
        created_at=text_of(now),
        changed_at=text_of(now),
    )
    return version(db, version_id)


def version(db: Database, version_id: int) -> AdapterVersion:
    """Raises NotFound."""
    return _version(the(db, f"adapter version {version_id}", "SELECT * FROM adapter_version WHERE id = ?", version_id))


def version_named(db: Database, person_id: int, n: int) -> AdapterVersion:
    """Raises NotFound."""
    sql = "SELECT * FROM adapter_version WHERE person_id = ? AND n = ?"
    return _version(the(db, f"adapter version p{person_id}.v{n}", sql, person_id, n))


def of_job(db: Database, job_id: str) -> AdapterVersion:
    """Raises NotFound."""
    return _version(the(db, f"candidate of job {job_id}", "SELECT * FROM adapter_version WHERE job_id = ?", job_id))


def current(db: Database, person_id: int) -> AdapterVersion | None:
    """The promoted version that the pointer names; None means the base model answers."""
    row = the(db, f"person p{person_id}", "SELECT current_version_id FROM person WHERE id = ?", person_id)
    return None if row["current_version_id"] is None else version(db, row["current_version_id"])


def of_person(db: Database, person_id: int) -> list[AdapterVersion]:
    """Every version, newest first."""
    sql = "SELECT * FROM adapter_version WHERE person_id = ? ORDER BY n DESC"
    return [_version(row) for row in rows(db, sql, person_id)]


def base_revision(db: Database, version_id: int) -> str:
    """Of the base model that it was trained on. Raises NotFound."""
    what = f"adapter version {version_id}"
    return str(the(db, what, "SELECT base_revision FROM adapter_version WHERE id = ?", version_id)["base_revision"])


def has_files(db: Database, version_id: int) -> bool:
    """False once they are gone or going: such a version answers never again."""
    sql = "SELECT 1 FROM adapter_version WHERE id = ? AND files_removed_at IS NULL AND NOT is_leaving"
    return one(db, sql, version_id) is not None


def people_with_earlier(db: Database) -> list[int]:
    """Who has versions that answered once, with their files; of nobody who is being erased or taught."""
    found = rows(
        db,
        "SELECT DISTINCT person_id FROM adapter_version AS version JOIN person ON person.id = version.person_id"
        " WHERE state = 'retired' AND files_removed_at IS NULL AND NOT is_leaving AND is_blocked = 0"
        " AND NOT EXISTS (SELECT 1 FROM job WHERE job.person_id = person.id AND job.state IN ('leased', 'trained'))",
    )
    return [row["person_id"] for row in found]


def let_old_go(db: Database, person_id: int, n_kept: int) -> int:
    """Have the files deleted of all versions but the current one and those that `n_kept` undos lead to.

    Returns how many. Their rows stay: lessons stand on them.
    """
    kept: set[int] = set()
    one_of_line = current(db, person_id)
    while one_of_line is not None and len(kept) <= n_kept:
        if one_of_line.state in ("promoted", "retired"):
            kept.add(one_of_line.version_id)
        one_of_line = None if one_of_line.parent_id is None else version(db, one_of_line.parent_id)
    going = [one.version_id for one in of_person(db, person_id) if one.state == "retired"]
    sql = "UPDATE adapter_version SET is_leaving = 1 WHERE id = ? AND files_removed_at IS NULL AND NOT is_leaving"
    return sum(change(db, sql, version_id) for version_id in going if version_id not in kept)


def n_promoted_since(db: Database, person_id: int, version_id: int | None) -> int:
    """Staleness: promotions after the version that sampled (None: after the base model)."""
    row = the(
        db,
        "count",
        "SELECT count(*) AS n FROM adapter_version WHERE person_id = ? AND state IN ('promoted', 'retired') AND id > ?",
        person_id,
        version_id or 0,
    )
    return int(row["n"])


def move(db: Database, version_id: int, state: VersionState, now: datetime) -> None:
    """Raises ImpossibleTransition."""
    moved(version(db, version_id).state, state)
    change(db, "UPDATE adapter_version SET state = ?, changed_at = ? WHERE id = ?", state, text_of(now), version_id)


def point_to(db: Database, person_id: int, version_id: int | None) -> None:
    """Move the person's pointer. Raises NotFound for somebody else's version."""
    if version_id is not None and version(db, version_id).person_id != person_id:
        raise NotFound(f"adapter version {version_id} is not one of p{person_id}'s")
    change(db, "UPDATE person SET current_version_id = ? WHERE id = ?", version_id, person_id)


def _version(row: Row) -> AdapterVersion:
    return AdapterVersion(
        version_id=row["id"],
        person_id=row["person_id"],
        n=row["n"],
        parent_id=row["parent_id"],
        job_id=row["job_id"],
        state=row["state"],
        folder=row["folder"],
        weights_sha256=row["weights_sha256"],
    )
