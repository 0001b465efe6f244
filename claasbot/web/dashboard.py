"""Pages for the admin: health, people, feedback, lessons. They read; changes go through the API's routes."""

from __future__ import annotations

from aiohttp import web

from claasbot.domain.person import CONSENT_TEXT
from claasbot.storage import feedback_events, lessons, people
from claasbot.web import reading
from claasbot.web.bodies import query_of
from claasbot.web.lesson_view import CURVE_HEIGHT, CURVE_WIDTH, lesson_view
from claasbot.web.pages import render
from claasbot.web.paging import Older, OlderLesson, OlderOfPerson, older
from claasbot.web.parts import PARTS

_MOST = 200
"""Rows on one page."""


async def overview(request: web.Request) -> web.StreamResponse:
    parts = request.app[PARTS]
    found = await parts.store.run(reading.overview)
    status = await parts.status()
    return render(
        request,
        "overview.html",
        status=status,
        people=found.people,
        lessons=[lesson_view(row) for row in found.lessons],
        feedback=found.feedback,
    )


async def everybody(request: web.Request) -> web.StreamResponse:
    before = query_of(request, Older).before
    rows = await request.app[PARTS].store.run(people.overview, _MOST, before)
    return render(request, "people.html", people=rows, older=older(rows, _MOST))


async def one_person(request: web.Request) -> web.StreamResponse:
    person_id = reading.person_number(request.match_info["person_id"])
    found = await request.app[PARTS].store.run(reading.person_page, person_id)
    lessons_of = [lesson_view(row) for row in found.lessons]
    return render(request, "person.html", found=found, lessons=lessons_of, most=_MOST)


async def all_feedback(request: web.Request) -> web.StreamResponse:
    asked = query_of(request, OlderOfPerson)
    rows = await request.app[PARTS].store.run(feedback_events.feedback_list, asked.person, _MOST, asked.before)
    return render(request, "feedback.html", feedback=rows, older=older(rows, _MOST, asked.person))


async def all_lessons(request: web.Request) -> web.StreamResponse:
    asked = query_of(request, OlderLesson)
    rows = await request.app[PARTS].store.run(lessons.lesson_list, asked.person, _MOST, asked.before)
    return render(
        request, "lessons.html", lessons=[lesson_view(row) for row in rows], older=older(rows, _MOST, asked.person)
    )


async def one_lesson(request: web.Request) -> web.StreamResponse:
    row, experiences = await request.app[PARTS].store.run(reading.lesson, request.match_info["job_id"])
    return render(
        request,
        "lesson.html",
        lesson=lesson_view(row),
        experiences=experiences,
        width=CURVE_WIDTH,
        height=CURVE_HEIGHT,
    )


async def door(request: web.Request) -> web.StreamResponse:
    """Who waits to be let in, and where the bot talks."""
    parts = request.app[PARTS]
    found = await parts.store.run(reading.door, parts.clock())
    return render(request, "door.html", found=found)


async def playground(request: web.Request) -> web.StreamResponse:
    return render(request, "playground.html", consent_text=CONSENT_TEXT)
