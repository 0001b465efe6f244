"""Pages for the admin: health, people, feedback, lessons. They read; changes go through the API's routes."""

from __future__ import annotations

from aiohttp import web

from claasbot.domain.person import CONSENT_TEXT
from claasbot.storage import lessons, people
from claasbot.web import reading
from claasbot.web.lesson_view import CURVE_HEIGHT, CURVE_WIDTH, lesson_view
from claasbot.web.pages import render
from claasbot.web.parts import PARTS

_MOST = 200


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
    return render(request, "people.html", people=await request.app[PARTS].store.run(people.overview))


async def one_person(request: web.Request) -> web.StreamResponse:
    person_id = reading.person_number(request.match_info["person_id"])
    found = await request.app[PARTS].store.run(reading.person_page, person_id)
    return render(request, "person.html", found=found, lessons=[lesson_view(row) for row in found.lessons])


async def all_feedback(request: web.Request) -> web.StreamResponse:
    rows = await request.app[PARTS].store.run(lessons.feedback_list, None, _MOST)
    return render(request, "feedback.html", feedback=rows, most=_MOST)


async def all_lessons(request: web.Request) -> web.StreamResponse:
    rows = await request.app[PARTS].store.run(lessons.lesson_list, None, _MOST)
    return render(request, "lessons.html", lessons=[lesson_view(row) for row in rows], most=_MOST)


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
    """Who waits to be let in, where the bot talks, and who did what."""
    parts = request.app[PARTS]
    found = await parts.store.run(reading.door, parts.clock())
    return render(request, "door.html", found=found)


async def playground(request: web.Request) -> web.StreamResponse:
    return render(request, "playground.html", consent_text=CONSENT_TEXT)
