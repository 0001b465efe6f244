"""A job as the engine sees it, put together from its rows. The same rows give the same job, however often it runs."""

from __future__ import annotations

from pathlib import Path

from sqlite_utils import Database

from claasbot.domain.adapter import version_name
from claasbot.domain.feedback import signal_of
from claasbot.domain.hindsight import teacher_messages
from claasbot.domain.job import JobExperience, JobLesson, Recipe, TrainingJob, lesson_seed
from claasbot.errors import NotFound
from claasbot.storage import completions, lessons, revocations, versions
from claasbot.storage.lessons import StoredExperience, StoredJob


def staged_job(db: Database, stored: StoredJob, data: Path, *, max_standing: int, n_earlier: int) -> TrainingJob | None:
    """None when some of its experiences were withdrawn: its id names them all. Raises NotFound when rows are gone."""
    leased = lessons.of_job(db, stored.job_id)
    if any(row.state != "leased" for row in leased):
        return None
    if not leased:
        raise NotFound(f"the feedback of job {stored.job_id} is gone")
    parent = None if stored.parent_version_id is None else versions.version(db, stored.parent_version_id)
    learned = lessons.consumed(db, stored.person_id, max(max_standing, n_earlier))
    standing = _standing(learned[:max_standing], stored.recipe)
    first = completions.completion(db, leased[0].completion_id)
    earlier = [
        row
        for row in learned[:n_earlier]
        if completions.completion(db, row.completion_id).base_revision == first.base_revision
    ]
    experiences = tuple(_experience(db, row, standing) for row in leased)
    return TrainingJob(
        job_id=stored.job_id,
        version_name=version_name(stored.person_id, stored.version_n),
        folder=str(data / version_folder(stored.person_id, stored.version_n)),
        parent_folder=None if parent is None else str(data / parent.folder),
        base_revision=first.base_revision,
        template_options=first.template_options,
        recipe=stored.recipe,
        seed=lesson_seed(experiences, stored.recipe),
        experiences=experiences,
        earlier=tuple(_experience(db, row, standing) for row in earlier),
    )


def staged_rebuild(db: Database, stored: StoredJob, data: Path, *, max_standing: int) -> TrainingJob:
    """Each lesson as its own job would have been, had what was taken back never been said.

    The teacher of each reads the preferences of the lessons before it that stand, and of no other. Nothing earlier is
    scored: all of it was judged when it was learned. Raises NotFound when its person or rows are gone.
    """
    parent = None if stored.parent_version_id is None else versions.version(db, stored.parent_version_id)
    learned = [row.experience for row in revocations.taught(db, stored.parent_version_id) if row.is_standing]
    again: list[JobLesson] = []
    base_revision = ""
    for lesson_job_id, rows in revocations.replayed(db, stored.job_id):
        again.append(_lesson(db, rows, lessons.job(db, lesson_job_id).recipe, _newest(learned, max_standing)))
        base_revision = completions.completion(db, rows[0].completion_id).base_revision
        learned += rows
    if not again:
        raise NotFound(f"all lessons of job {stored.job_id} are gone")
    *before, last = again
    first = again[0]
    return TrainingJob(
        job_id=stored.job_id,
        version_name=version_name(stored.person_id, stored.version_n),
        folder=str(data / version_folder(stored.person_id, stored.version_n)),
        parent_folder=None if parent is None else str(data / parent.folder),
        base_revision=base_revision,
        template_options=last.template_options,
        recipe=last.recipe,
        seed=lesson_seed(first.experiences, first.recipe),
        experiences=last.experiences,
        lessons_before=tuple(before),
    )


def _lesson(db: Database, rows: list[StoredExperience], recipe: Recipe, learned: list[StoredExperience]) -> JobLesson:
    standing = _standing(learned, recipe)
    return JobLesson(
        experiences=tuple(_experience(db, row, standing) for row in rows),
        recipe=recipe,
        template_options=completions.completion(db, rows[0].completion_id).template_options,
    )


def _newest(learned: list[StoredExperience], limit: int) -> list[StoredExperience]:
    """As `storage.lessons.consumed` gives them."""
    return sorted(learned, key=lambda row: row.experience_id, reverse=True)[:limit]


def version_folder(person_id: int, n: int) -> Path:
    """Where a version lies, relative to the data folder."""
    return Path("adapters") / f"p{person_id}" / f"v{n}"


def _standing(learned: list[StoredExperience], recipe: Recipe) -> tuple[str, ...]:
    """The preferences that the teacher goes on reading, oldest first (`base+digest`)."""
    if recipe.teacher != "base+digest":
        return ()
    texts = [signal_of(row.feedback.kind, row.feedback.text).hint for row in reversed(learned)]
    return tuple(dict.fromkeys(text for text in texts if text))


def _experience(db: Database, row: StoredExperience, standing: tuple[str, ...]) -> JobExperience:
    sent = completions.completion(db, row.completion_id)
    signal = signal_of(row.feedback.kind, row.feedback.text)
    return JobExperience(
        experience_id=row.experience_id,
        messages=sent.messages,
        teacher_messages=teacher_messages(
            sent.messages,
            hints=(signal.hint,) if signal.hint else (),
            demonstration=signal.demonstration,
            standing=standing,
        ),
        prompt_ids=sent.completion.prompt_ids,
        token_ids=sent.completion.token_ids,
        logprobs=sent.completion.logprobs,
        version_name=sent.version_name,
        correction=signal.demonstration,
    )
