"""Rows as a lesson leaves them, with the caller's text wherever a person or a machine can put one."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlite_utils import Database

from claasbot.domain.completion import Completion, Sampling, SentCompletion
from claasbot.domain.conversation import ChatAddress, Message, Part
from claasbot.domain.feedback import NewFeedback
from claasbot.domain.job import ExperienceScore, Recipe, StepMetrics, TrainingResult
from claasbot.storage import completions, conversations, feedback_events, lessons, people, versions
from claasbot.storage.conversations import NewTurn

AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ADDRESS = ChatAddress(platform="playground", bot_account="main", chat="main")
JOB = "a" * 24


def result_of(*losses: float, version_name: str = "p1.v1") -> TrainingResult:
    steps = tuple(
        StepMetrics(loss=loss, grad_norm=1.0, kl_from_start_nats=0.01 * n, ratio_clipped_share=0.25)
        for n, loss in enumerate(losses)
    )
    return TrainingResult(
        job_id=JOB,
        version_name=version_name,
        weights_sha256="9f2c01ab" * 8,
        finite=True,
        delta_norm=0.4,
        mismatch_nats=0.011,
        kl_new_old_nats=0.222,
        kl_base_nats=0.333,
        new_logprobs=((-1.0,),),
        parent_logprobs=((-1.1,),),
        steps=steps,
        learned=(ExperienceScore(experience_id=1, before_nats=0.9, after_nats=0.4),),
        earlier=(),
    )


def learned(
    db: Database, text: str, *, verdict: tuple[str, ...] = (), account: str = "admin", job_id: str = JOB
) -> int:
    """One person, one answer, one feedback, one lesson: promoted, or rejected with the verdict. Returns the person."""
    person = people.person_of(db, "playground", account, text, AT)
    conversation = conversations.open_conversation(db, person.person_id, ADDRESS, AT)
    conversations.add_user_turn(
        db, conversation, NewTurn(parts=(Part(text=text),), inbox_id=None, message_key=None), AT
    )
    sent = completions.add_completion(db, _sent(person.person_id, conversation, text), None, AT)
    completions.set_message_keys(db, sent.completion_id, (str(sent.completion_id),))
    new = NewFeedback(completion_id=sent.completion_id, kind="text", text=text, source_key=f"source of {job_id}")
    event = feedback_events.add_feedback(db, person.person_id, new, AT)
    experience = lessons.add_experience(db, event, AT)
    lessons.move(db, experience.experience_id, "queued", text, AT)
    n = versions.next_n(db, person.person_id)
    lessons.add_job(
        db,
        job_id=job_id,
        person_id=person.person_id,
        version_n=n,
        parent_version_id=None,
        recipe=Recipe(),
        reason=text,
        experience_ids=(experience.experience_id,),
        now=AT,
    )
    lessons.job_failed(db, job_id, text, AT)
    version = versions.add_candidate(
        db,
        person_id=person.person_id,
        n=n,
        parent_id=None,
        job_id=job_id,
        folder="adapters/p1/v1",
        weights_sha256="9f2c01ab" * 8,
        base_revision="0" * 64,
        now=AT,
    )
    seconds = {"queue": 0.5, "teacher": 1.0, "student": 0.5, "train": 2.5}
    lessons.job_trained(db, job_id, result_of(0.5, 0.25), seconds)
    if verdict:
        versions.move(db, version.version_id, "rejected", AT)
        lessons.move(db, experience.experience_id, "rejected", text, AT)
    else:
        versions.move(db, version.version_id, "promoted", AT)
        versions.point_to(db, person.person_id, version.version_id)
        lessons.consume(db, experience.experience_id, version.version_id, AT)
    lessons.job_ended(db, job_id, "rejected" if verdict else "promoted", verdict, seconds, AT)
    return person.person_id


def _sent(person_id: int, conversation_id: int, text: str) -> SentCompletion:
    completion = Completion(
        text=text,
        prompt_ids=(1,),
        token_ids=(2,),
        logprobs=(-1.0,),
        finish_reason="stop",
        model="base",
        first_token_s=0.1,
        total_s=0.2,
    )
    return SentCompletion(
        completion_id=0,
        person_id=person_id,
        conversation_id=conversation_id,
        address=ADDRESS,
        message_key=None,
        messages=(Message(role="user", content=text),),
        completion=completion,
        sampling=Sampling(),
        template_options={},
        template_hash="t",
        base_revision="0" * 64,
        version_id=None,
        version_name="base",
    )
