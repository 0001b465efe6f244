"""The units of work that take a lesson out of the weights: a plan, a job that goes through the rest again, its end.

Until that job's version is promoted the version before it goes on answering. Refuses to judge: the gate does.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlite_utils import Database

from claasbot.domain.adapter import AdapterVersion, version_name
from claasbot.domain.completion import BASE
from claasbot.domain.job import rebuild_identity
from claasbot.domain.rebuild import Plan, Taught, plan
from claasbot.services.leasing import ANOTHER_BASE
from claasbot.services.platform_modes import PlatformModes
from claasbot.storage import lessons, outbox, people, revocations, versions
from claasbot.storage.lessons import StoredExperience, StoredJob
from claasbot.storage.revocations import TaughtRow

_CHANGED = "what it was to learn changed meanwhile"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilding:
    """`modes`: what may train, by platform, where it is not `full`."""

    modes: PlatformModes = field(default_factory=lambda: PlatformModes({}))

    def taught(self, db: Database, person_id: int, base_revision: str | None) -> list[Taught]:
        """What the line was taught, each judged by what holds now. `base_revision` None: of whatever model."""
        return [
            Taught(
                experience_id=row.experience.experience_id,
                job_id=row.job_id,
                lesson_n=row.lesson_n,
                version_id=row.version_id,
                is_revoked=row.experience.state == "withdrawn",
                why_not=self._why_not(db, row, base_revision),
            )
            for row in revocations.taught(db, _answering(db, person_id))
        ]

    def plan(self, db: Database, person_id: int, base_revision: str | None, *, without: tuple[int, ...] = ()) -> Plan:
        """`without`: experiences that might be taken back besides those that were."""
        taught = [
            replace(row, is_revoked=row.is_revoked or row.experience_id in without)
            for row in self.taught(db, person_id, base_revision)
        ]
        return plan(revocations.line(db, _answering(db, person_id)), taught)

    def _why_not(self, db: Database, row: TaughtRow, base_revision: str | None) -> str | None:
        if row.is_emptied:
            return "its messages are not kept any more"
        if row.is_taken_back:
            return "you took the feedback back"
        if base_revision not in (None, row.base_revision):
            return ANOTHER_BASE
        return self.why_not_any_more(db, row.experience)

    def why_not_any_more(self, db: Database, row: StoredExperience) -> str | None:
        """Consent and the host's rules as they are now: both may have changed since it was noted."""
        if not people.consent_of(db, row.person_id, row.address).allows_learning:
            return "you withdrew your consent"
        return self.modes.why_not(db, row.address.platform, row.completion_id, is_interaction=row.is_interaction)

    def begin(self, db: Database, person_id: int, base_revision: str | None, now: datetime) -> bool:
        """What was asked and has not begun: a rebuild, or the pointer at once where nothing is to be learned again.

        Returns whether a rebuild began. Does nothing while something of the person is being trained or judged.
        """
        if person_id not in revocations.waiting(db):
            return False
        found = self.plan(db, person_id, base_revision)
        if found.lessons:
            _add_job(db, person_id, found, now)
            return True
        self._stand_on(db, person_id, found.start, now)
        _give_up(db, found.lost, now)
        revocations.end(db, person_id, now)
        return False

    def settle(
        self,
        db: Database,
        job: StoredJob,
        version: AdapterVersion,
        reasons: tuple[str, ...],
        seconds: dict[str, float],
        now: datetime,
    ) -> bool:
        """Transaction 2 of a rebuild: promoted, or not good enough, or about a log that has changed since: made again.

        Returns whether the version answers now.
        """
        found = self.plan(db, job.person_id, versions.base_revision(db, version.version_id))
        done = [
            (lesson, tuple(row.experience_id for row in rows)) for lesson, rows in revocations.replayed(db, job.job_id)
        ]
        planned = [(lesson.job_id, lesson.experience_ids) for lesson in found.lessons]
        if (job.parent_version_id, done) != (found.start, planned):
            versions.move(db, version.version_id, "rejected", now)
            lessons.job_ended(db, job.job_id, "abandoned", (_CHANGED,), seconds, now)
            return False
        if reasons:
            lessons.job_ended(db, job.job_id, "rejected", reasons, seconds, now)
            self._fall_back(db, job.person_id, found, now)
            return False
        revocations.relearned(db, job.job_id, version.version_id)
        self._stand_on(db, job.person_id, version.version_id, now)
        _give_up(db, found.lost, now)
        lessons.job_ended(db, job.job_id, "promoted", (), seconds, now)
        _tell(db, revocations.end(db, job.person_id, now), version.name, found, now, is_rebuilt=True)
        return True

    def fall_back(self, db: Database, person_id: int, now: datetime) -> None:
        """The job that was to make the version came to nothing: the line ends before the lesson that was taken back."""
        self._fall_back(db, person_id, self.plan(db, person_id, None), now)

    def _fall_back(self, db: Database, person_id: int, found: Plan, now: datetime) -> None:
        """What came after is queued: each lesson may pass by itself, and has its own tries."""
        start = None if found.start is None else versions.version(db, found.start)
        self._stand_on(db, person_id, found.start, now)
        _give_up(db, found.lost, now)
        for experience_id in found.experience_ids:
            revocations.queue_again(db, experience_id, now)
        name = BASE if start is None else start.name
        _tell(db, revocations.end(db, person_id, now), name, found, now, is_rebuilt=False)

    def _stand_on(self, db: Database, person_id: int, version_id: int | None, now: datetime) -> None:
        """The pointer moves; whatever is outside the new line never answers again."""
        current = versions.current(db, person_id)
        if current is not None and current.version_id != version_id:
            versions.move(db, current.version_id, "retired", now)
        if version_id is not None and (current is None or current.version_id != version_id):
            versions.move(db, version_id, "promoted", now)
        versions.point_to(db, person_id, version_id)
        revocations.let_all_others_go(db, person_id, now)


def _answering(db: Database, person_id: int) -> int | None:
    current = versions.current(db, person_id)
    return None if current is None else current.version_id


def _add_job(db: Database, person_id: int, found: Plan, now: datetime) -> None:
    start = None if found.start is None else versions.version(db, found.start)
    n = versions.next_n(db, person_id)
    recipes = [lessons.job(db, lesson.job_id).recipe for lesson in found.lessons]
    job_id = rebuild_identity(
        parent=BASE if start is None else start.server_name,
        version_name=version_name(person_id, n),
        lessons=tuple((lesson.experience_ids, recipe) for lesson, recipe in zip(found.lessons, recipes, strict=True)),
    )
    lessons.add_job(
        db,
        job_id=job_id,
        person_id=person_id,
        version_n=n,
        parent_version_id=found.start,
        recipe=recipes[-1],
        reason="a lesson was taken back",
        experience_ids=(),
        now=now,
    )
    revocations.add_replay(db, job_id, found.lessons)


def _give_up(db: Database, lost: tuple[Taught, ...], now: datetime) -> None:
    """What cannot be learned again has left the weights with the lesson."""
    for row in lost:
        lessons.move(db, row.experience_id, "withdrawn", row.why_not or "", now)
        outbox.clear_dropped(db, lessons.experience(db, row.experience_id), now)


def _tell(
    db: Database, taken_back: list[StoredExperience], answers: str, done: Plan, now: datetime, *, is_rebuilt: bool
) -> None:
    """Once, where the first of it was said. `answers`: the name of the version that does so now."""
    if taken_back:
        facts = {
            "taken_back": taken_back[0].feedback.text,
            "version": answers,
            "n_lost": len(done.lost),
            "n_queued": 0 if is_rebuilt else len(done.experience_ids),
        }
        outbox.add(db, taken_back[0], "cleared", facts, now)
