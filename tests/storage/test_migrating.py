"""A database of the release before goes on: its rows are read, learned from and erased by this one."""

import json
import sqlite3
from datetime import UTC, datetime

import pytest
from sqlite_utils import Database

from claasbot.storage import completions, erasure, inbox, lessons, outbox
from claasbot.storage.rows import insert, rows
from claasbot.storage.schema import migrations
from claasbot.storage.store import Store

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
AT = NOW.isoformat(timespec="microseconds")
CHAT = {"platform": "playground", "bot_account": "main", "chat": "main"}


def _write_spine(db: Database) -> None:
    """One person who was answered and said what was wrong, as m001 knows it."""
    insert(db, "person", display_name="Ada", created_at=AT)
    insert(db, "account", person_id=1, platform="playground", account="admin")
    insert(db, "consent", person_id=1, **CHAT, text_version="2026-11", state="granted", at=AT)
    insert(db, "conversation", person_id=1, **CHAT, started_at=AT)
    insert(
        db, "completion", person_id=1, conversation_id=1, **CHAT, message_key="7", text="hi", messages_json="[]",
        prompt_ids_json="[1]", token_ids_json="[2]", logprobs_json="[-1]", finish_reason="stop",
        sampling_json=json.dumps({"temperature": 1.0, "top_p": 1.0, "max_tokens": 5, "seed": 0}),
        template_options_json="{}", template_hash="h", base_revision="r", version_name="base",
        first_token_s=0.1, total_s=0.2, created_at=AT,
    )  # fmt: skip
    insert(db, "turn", conversation_id=1, role="user", text="q", inbox_id=1, created_at=AT)
    insert(db, "turn", conversation_id=1, role="assistant", text="hi", completion_id=1, inbox_id=1, created_at=AT)
    insert(db, "feedback_event", person_id=1, completion_id=1, kind="text", text="no", source_key="s", created_at=AT)
    insert(
        db, "experience", person_id=1, completion_id=1, feedback_event_id=1, state="queued", created_at=AT,
        changed_at=AT,
    )  # fmt: skip
    insert(db, "outbox", person_id=1, **CHAT, kind="noted", message_key="7", experience_id=1, created_at=AT)
    event = {
        "kind": "Said", "address": CHAT, "account": "admin", "display_name": "A", "update_key": "k1", "at": None,
        "is_group": False, "text": "hello", "message_key": "m1", "reply_to": None,
    }  # fmt: skip
    insert(db, "inbox", **CHAT, account="admin", update_key="k1", event_json=json.dumps(event), received_at=AT)


@pytest.fixture
async def store(tmp_path):
    path = tmp_path / "claasbot.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA foreign_keys=on")
    old = Database(connection)
    migrations.apply(old, stop_before="m002_chat_platforms")
    _write_spine(old)
    connection.close()
    store = Store(path)
    await store.open()
    yield store
    await store.close()


async def test_the_rows_of_the_release_before_are_whole_after_the_migration(store):
    assert await store.run(rows, "PRAGMA foreign_key_check") == []
    assert await store.run(rows, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]


async def test_what_waited_before_the_migration_still_waits(store):
    (update,) = await store.run(inbox.waiting, NOW)
    assert update.event.text == "hello"
    (address,) = await store.run(outbox.waiting_chats, NOW)
    (notice,) = await store.run(outbox.waiting, address, NOW)
    assert (notice.kind, notice.message_key, notice.is_marked) == ("noted", "7", False)
    (waiting,) = await store.run(lessons.queued, 1, 10)
    assert (waiting.feedback.text, waiting.is_interaction) == ("no", False)
    sent = await store.run(completions.completion_at, address, "7")
    assert sent.completion_id == 1


async def test_who_was_there_before_the_migration_can_be_erased(store):
    asked = await store.run(erasure.ask, 1, "adapters/p1", NOW)
    counts = await store.run(erasure.finish, asked, NOW)
    assert counts["person"] == counts["completion"] == counts["experience"] == counts["inbox"] == 1
    assert await store.run(rows, "SELECT * FROM turn") == []
