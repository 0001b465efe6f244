"""Which waiting feedback one job trains, and the lease on it. One transaction; refuses to know engines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from sqlite_utils import Database

from claasbot.domain.adapter import version_name
from claasbot.domain.completion import BASE
from claasbot.domain.job import Recipe, job_identity
from claasbot.domain.schedule import Rules, Train
from claasbot.services.platform_modes import PlatformModes
from claasbot.storage import completions, lessons, outbox, people, versions
from claasbot.storage.lessons import StoredExperience

ANOTHER_BASE = "it was answered by another base model"
_NOT_READABLE = "what I kept of that answer cannot be read any more"


@dataclass(frozen=True, slots=True, kw_only=True)
class LessonRules:
    """What the host decides about lessons."""

    rules: Rules
    recipe: Recipe
    max_experiences: int
    max_standing: int
    n_earlier: int
    max_attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Leasing:
    """Chooses batches by the host's rules."""

    rules: LessonRules
    modes: PlatformModes

    def lease(self, db: Database, decision: Train, base_revision: str, now: datetime) -> None:
        """Version number, job row, experiences leased. Nothing, if none of them may teach any more."""
        chosen = self._batch(db, decision.person_id, base_revision, now)
        if not chosen:
            return
        parent = versions.current(db, decision.person_id)
        n = versions.next_n(db, decision.person_id)
        ids = tuple(experience.experience_id for experience in chosen)
        recipe = _recipe_for(chosen, self.rules.recipe)
        job_id = job_identity(
            parent=BASE if parent is None else parent.server_name,
            version_name=version_name(decision.person_id, n),
            experience_ids=ids,
            recipe=recipe,
        )
        lessons.add_job(
            db,
            job_id=job_id,
            person_id=decision.person_id,
            version_n=n,
            parent_version_id=None if parent is None else parent.version_id,
            recipe=recipe,
            reason=decision.reason,
            experience_ids=ids,
            now=now,
        )
        for experience in chosen:
            outbox.add(db, experience, "queued", {"version": version_name(decision.person_id, n)}, now)

    def _batch(self, db: Database, person_id: int, base_revision: str, now: datetime) -> list[StoredExperience]:
        """What one job trains: oldest first, all sampled under one chat template with the same options, and all
        suspected of breaking a step to the same degree (`storage.lessons.halve`).

        The rest waits for the next job. What can never teach is rejected on the way.
        """
        batch: list[StoredExperience] = []
        kind: tuple[str, dict[str, object], int | None] | None = None
        for experience in lessons.queued(db, person_id, self.rules.max_experiences):
            try:
                sent = completions.completion(db, experience.completion_id)
            except (ValueError, TypeError, KeyError):  # a damaged row must not stop everybody's lessons
                lessons.move(db, experience.experience_id, "rejected", _NOT_READABLE, now)
                outbox.add(db, experience, "refused", {"reason": _NOT_READABLE}, now)
                continue
            not_here = self._why_not_here(db, experience)
            if not people.consent_of(db, person_id, experience.address).allows_learning:
                lessons.move(db, experience.experience_id, "rejected", "you withdrew your consent", now)
                outbox.clear_dropped(db, experience, now)
            elif sent.base_revision != base_revision:
                lessons.move(db, experience.experience_id, "rejected", ANOTHER_BASE, now)
                outbox.add(db, experience, "refused", {"reason": ANOTHER_BASE}, now)
            elif not_here is not None:
                lessons.move(db, experience.experience_id, "rejected", not_here, now)
                outbox.add(db, experience, "refused", {"reason": not_here}, now)
            elif kind in (None, (sent.template_hash, sent.template_options, experience.max_batch)):
                kind = (sent.template_hash, sent.template_options, experience.max_batch)
                batch.append(experience)
        return batch[: kind[2]] if kind is not None else []

    def _why_not_here(self, db: Database, row: StoredExperience) -> str | None:
        return self.modes.why_not(db, row.address.platform, row.completion_id, is_interaction=row.is_interaction)


def _recipe_for(chosen: list[StoredExperience], recipe: Recipe) -> Recipe:
    """One step only for feedback whose first candidate the gate refused as too large a move."""
    return replace(recipe, n_steps=1) if any(row.n_refusals for row in chosen) else recipe
