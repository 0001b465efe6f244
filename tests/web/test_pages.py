"""What the dashboard shows, and that a text stays a text wherever it is shown."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from claasbot.resources import templates_dir
from claasbot.web.sign_in import new_sign_in_link

from .lesson_rows import JOB, learned
from .visitors import session_of

PAGES = ("/", "/playground", "/people", "/people/1", "/feedback", "/lessons", f"/lessons/{JOB}")
HOSTILE = (
    "<script>alert(1)</script>",
    "{{7*7}}{% raw %}${7*7}",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "</textarea></template><svg onload=alert(1)>",
    "javascript:alert(1)",
    "<!--",
    "\x00\x1b[31m\u202e",
)


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the text in between."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def shape(text: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(tag, tuple(sorted(attributes))) for tag, attributes in Elements(text).found]


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("verdict", [False, True], ids=["promoted", "rejected"])
async def test_a_text_never_becomes_markup(site, hostile, verdict):
    """The page has the same elements and attributes as with a harmless text, and the text can be read."""
    await site.parts.store.run(learned, hostile, verdict=(hostile,) if verdict else ())
    hostile_pages = {path: await site.page(path) for path in PAGES}
    await site.parts.store.run(lambda db: _replace(db, hostile, "harmless"))
    for path in PAGES:
        assert shape(hostile_pages[path]) == shape(await site.page(path)), path
    assert hostile.strip("\x00") in Elements(hostile_pages["/feedback"]).text.replace("\ufffd", "") or "\x00" in hostile


def _replace(db, old: str, new: str) -> None:  # type: ignore[no-untyped-def]
    for table, column in (("person", "display_name"), ("turn", "text"), ("completion", "text"), ("job", "reason"),
                          ("feedback_event", "text"), ("experience", "reason"), ("job", "error")):  # fmt: skip
        db.conn.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (new, old))
    db.conn.execute("UPDATE job SET verdict_json = '[\"harmless\"]' WHERE verdict_json <> '[]'")


async def test_a_hostile_token_in_the_link_stays_a_value(stranger):
    page = Elements(await stranger.page("/sign-in?token=%22%3E%3Cscript%3Ealert(1)%3C/script%3E"))
    assert [tag for tag, _ in page.found if tag == "script"] == []
    tokens = [attributes["value"] for tag, attributes in page.found if attributes.get("name") == "token"]
    assert tokens == ['"><script>alert(1)</script>']


@pytest.mark.parametrize("path", PAGES)
async def test_nothing_is_inline(site, path):
    """What the content policy would refuse, so that a page never half works."""
    await site.parts.store.run(learned, "shorter")
    for tag, attributes in Elements(await site.page(path)).found:
        assert "style" not in attributes, (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert tag != "style" and (tag != "script" or (attributes["src"] or "").startswith("/static/"))
        for name in ("src", "href", "action"):
            assert "//" not in (attributes.get(name) or ""), (tag, attributes)


@pytest.mark.parametrize("path", PAGES)
async def test_every_field_has_a_label_and_every_page_one_heading(site, path):
    await site.parts.store.run(learned, "shorter")
    found = Elements(await site.page(path)).found
    labelled = {attributes.get("for") for tag, attributes in found if tag == "label"}
    for tag, attributes in found:
        if tag == "textarea" and "id" in attributes:
            assert attributes["id"] in labelled, attributes
    assert [tag for tag, _ in found].count("h1") == 1


async def test_scripts_insert_text_as_text():
    for path in (templates_dir() / "static").glob("*.js"):
        source = path.read_text()
        for way in ("innerHTML =", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert way not in source, f"{path.name} uses {way}"


async def test_an_empty_dashboard_says_what_to_do(site):
    for path in ("/", "/people", "/feedback", "/lessons"):
        page = await site.page(path)
        assert "yet." in page and 'href="/playground"' in page, path


async def test_health_shows_every_light_and_queue(site):
    page = await site.page("/")
    for words in ("server", "trainer", "light-down", "Messages waiting", "<dd>1</dd>", "<dd>2</dd>", "<dd>3</dd>"):
        assert words in page


async def test_a_person_can_be_taken_back_to_the_version_before(site):
    await site.parts.store.run(learned, "shorter")
    page = await site.page("/people/1")
    assert "Undo p1.v1" in page and "9f2c01ab9f2c" in page and 'action="/api/people/1/undo"' in page
    answer = await site.http.post("/api/people/1/undo", data={"csrf_token": site.csrf}, allow_redirects=False)
    assert (answer.headers["Location"], site.asked) == ("/people/1", [("undo", 1)])


@pytest.mark.parametrize("path", ["/people/1", f"/lessons/{JOB}"])
async def test_any_one_lesson_of_a_person_can_be_taken_back(site, path):
    await site.parts.store.run(learned, "shorter")
    action = f"/api/people/1/lessons/{JOB}/revoke"
    assert f'action="{action}"' in await site.page(path)
    answer = await site.http.post(action, data={"csrf_token": site.csrf}, allow_redirects=False)
    assert (answer.headers["Location"], site.asked) == ("/people/1", [("revoke", 1, JOB)])


async def test_a_lesson_shows_its_numbers_and_where_the_time_went(site):
    await site.parts.store.run(learned, "shorter")
    page = await site.page(f"/lessons/{JOB}")
    for number in ("0.500", "0.250", "0.222", "0.333", "0.011", "0.400", "0.900"):
        assert number in page
    # 0.5 waiting, 1.0 teacher, 0.5 student and 1.0 that the trainer does not explain, of 3.0 s
    assert 'class="seg-teacher" x="16.667" y="0" width="33.333"' in page
    assert 'class="seg-hand-over" x="66.667" y="0" width="33.333"' in page
    assert '<polyline points="0.0,0.0 320.0,120.0"' in page


async def test_a_refused_lesson_says_why(site):
    await site.parts.store.run(learned, "shorter", verdict=("moved from the parent by 2.00 nats, at most 1.00",))
    for path in ("/lessons", f"/lessons/{JOB}"):
        assert "moved from the parent by 2.00 nats" in await site.page(path)
    assert "The base model" not in await site.page("/people/1")
    assert "Undo p1.v1" not in await site.page("/people/1")


@pytest.mark.parametrize(
    "path",
    ["/people/2", "/people/abc", "/people/-1", "/people/99999999999999999999", "/people/²", "/lessons/none", "/no"],
)
async def test_what_is_not_there_is_a_clear_page(site, path):
    page = await site.page(path, status=404)
    assert "That did not work" in page and "Traceback" not in page


async def test_an_unknown_failure_shows_an_id_that_the_log_knows(site, caplog):
    site.failure = RuntimeError("secret detail")
    page = await site.page("/", status=500)
    error_id = page.partition("(error ")[2][:8]
    assert len(error_id) == 8 and "secret detail" not in page and "Traceback" not in page
    assert [record.getMessage() for record in caplog.records if error_id in record.getMessage()]
    assert caplog.text.count("secret detail") == 1


async def test_the_access_log_has_no_tokens_and_no_texts(site, caplog):
    caplog.set_level("INFO")
    link = await new_sign_in_link(site.parts.store, site.parts.clock, "")
    await site.http.get(link)
    await site.http.get("/people/1?note=hush")
    assert "GET /sign-in 200" in caplog.text and "GET /people/{person_id} 404" in caplog.text
    assert link.partition("token=")[2] not in caplog.text and "hush" not in caplog.text


async def test_what_programs_ask_every_few_seconds_does_not_fill_the_log_unless_it_fails(stranger, caplog):
    caplog.set_level("INFO")
    viewer = await session_of(stranger, "eve", "viewer")
    for path in ("/static/site.css", "/healthz", "/api/status"):
        await stranger.http.get(path, headers=viewer)
    await stranger.http.get("/api/status")
    lines = [line.message.partition(" in ")[0] for line in caplog.records if line.name == "claasbot.web.problems"]
    assert lines == ["GET /api/status 401"]


async def test_what_is_refused_stands_in_the_log_with_its_rule(stranger, caplog):
    """Nobody, a weaker role, a page of another site, a body that does not fit (ASVS 16.3.2, 16.3.3)."""
    caplog.set_level("INFO")
    viewer, admin = await session_of(stranger, "eve", "viewer"), await session_of(stranger, "bob", "admin")
    await stranger.http.get("/people")
    await stranger.http.post("/api/train-now", headers=viewer)
    await stranger.http.post("/api/train-now", headers=admin | {"Origin": "http://elsewhere.example"})
    await stranger.http.post("/api/learning", headers=admin, json={"paused": "perhaps"})
    lines = [line.message.partition(" in ")[0] for line in caplog.records if line.name == "claasbot.web.problems"]
    assert lines == ["GET /people 401", *["POST /api/train-now 403"] * 2, "POST /api/learning 400"]


async def test_an_abandoned_lesson_has_the_same_word_on_every_page(site):
    await site.parts.store.run(learned, "shorter", verdict=("its parent was undone meanwhile",))
    await site.parts.store.run(lambda db: db.conn.execute("UPDATE job SET state = 'abandoned'"))
    for path in ("/lessons", "/people/1"):
        words = re.findall(r'class="chip state-(\w+)"', await site.page(path))
        assert "abandoned" in words, path
    versions = (await site.page("/people/1")).partition('aria-labelledby="lessons"')[0]
    assert "rejected" not in versions
