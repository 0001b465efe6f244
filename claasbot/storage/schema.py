"""The tables, as numbered migrations. A migration that was released is never edited.

Ids are AUTOINCREMENT and never reused; times are UTC in ISO 8601; JSON columns say so.
"""

from __future__ import annotations

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

migrations = Migrations("claasbot")

_SPINE = """
CREATE TABLE person (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    display_name TEXT NOT NULL,
    created_at TEXT NOT NULL,
    current_version_id INTEGER REFERENCES adapter_version(id),
    next_version_n INTEGER NOT NULL DEFAULT 1,
    is_blocked INTEGER NOT NULL DEFAULT 0 CHECK (is_blocked IN (0, 1))
) STRICT;

CREATE TABLE account (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    person_id INTEGER NOT NULL REFERENCES person(id),
    platform TEXT NOT NULL,
    account TEXT NOT NULL,
    UNIQUE (platform, account)
) STRICT;

CREATE TABLE consent (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    person_id INTEGER NOT NULL REFERENCES person(id),
    platform TEXT NOT NULL,
    bot_account TEXT NOT NULL,
    chat TEXT NOT NULL,
    text_version TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('asked', 'granted', 'withdrawn')),
    at TEXT NOT NULL
) STRICT;
CREATE INDEX consent_of_chat ON consent (person_id, platform, bot_account, chat, id);

CREATE TABLE conversation (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    person_id INTEGER NOT NULL REFERENCES person(id),
    platform TEXT NOT NULL,
    bot_account TEXT NOT NULL,
    chat TEXT NOT NULL,
    started_at TEXT NOT NULL,
    ended_at TEXT
) STRICT;
CREATE INDEX conversation_of_chat ON conversation (person_id, platform, bot_account, chat, id);

CREATE TABLE turn (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation_id INTEGER NOT NULL REFERENCES conversation(id),
    role TEXT NOT NULL CHECK (role IN ('user', 'assistant')),
    text TEXT NOT NULL,
    completion_id INTEGER REFERENCES completion(id),
    inbox_id INTEGER,
    created_at TEXT NOT NULL,
    replaced_at TEXT
) STRICT;
CREATE INDEX turn_of_conversation ON turn (conversation_id, id);
CREATE UNIQUE INDEX one_user_turn_per_update ON turn (inbox_id) WHERE role = 'user' AND inbox_id IS NOT NULL;

CREATE TABLE completion (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    person_id INTEGER NOT NULL REFERENCES person(id),
    conversation_id INTEGER NOT NULL REFERENCES conversation(id),
    platform TEXT NOT NULL,
    bot_account TEXT NOT NULL,
    chat TEXT NOT NULL,
    message_key TEXT,
    text TEXT NOT NULL,
    messages_json TEXT NOT NULL,
    prompt_ids_json TEXT NOT NULL,
    token_ids_json TEXT NOT NULL,
    logprobs_json TEXT NOT NULL,
    finish_reason TEXT NOT NULL CHECK (finish_reason IN ('stop', 'length', 'abort')),
    sampling_json TEXT NOT NULL,
    template_options_json TEXT NOT NULL,
    template_hash TEXT NOT NULL,
    base_revision TEXT NOT NULL,
    version_id INTEGER REFERENCES adapter_version(id),
    version_name TEXT NOT NULL,
    retry_of INTEGER REFERENCES completion(id),
    first_token_s REAL NOT NULL,
    total_s REAL NOT NULL,
    created_at TEXT NOT NULL
) STRICT;
CREATE INDEX completion_of_person ON completion (person_id, id);
CREATE UNIQUE INDEX completion_of_message ON completion (platform, bot_account, chat, message_key)
    WHERE message_key IS NOT NULL;

CREATE TABLE feedback_event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    person_id INTEGER NOT NULL REFERENCES person(id),
    completion_id INTEGER NOT NULL REFERENCES completion(id),
    kind TEXT NOT NULL CHECK (kind IN ('thumbs_up', 'thumbs_down', 'text', 'correction')),
    text TEXT NOT NULL,
    source_key TEXT NOT NULL UNIQUE,
    created_at TEXT NOT NULL,
    withdrawn_at TEXT
) STRICT;
CREATE INDEX feedback_of_person ON feedback_event (person_id, id);

CREATE TABLE experience (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    person_id INTEGER NOT NULL REFERENCES person(id),
    completion_id INTEGER NOT NULL REFERENCES completion(id),
    feedback_event_id INTEGER NOT NULL UNIQUE REFERENCES feedback_event(id),
    state TEXT NOT NULL CHECK (state IN
        ('received', 'queued', 'leased', 'consumed', 'rejected', 'quarantined', 'withdrawn')),
    reason TEXT NOT NULL DEFAULT '',
    job_id TEXT,
    consumed_by INTEGER REFERENCES adapter_version(id),
    n_refusals INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL,
    changed_at TEXT NOT NULL,
    CHECK ((state = 'consumed') = (consumed_by IS NOT NULL) OR state = 'withdrawn')
) STRICT;
CREATE INDEX experience_waiting ON experience (state, person_id, id);

CREATE TABLE job (
    id TEXT PRIMARY KEY,
    person_id INTEGER NOT NULL REFERENCES person(id),
    version_n INTEGER NOT NULL,
    parent_version_id INTEGER REFERENCES adapter_version(id),
    recipe_json TEXT NOT NULL,
    reason TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('leased', 'trained', 'promoted', 'rejected', 'dead', 'abandoned')),
    attempts INTEGER NOT NULL DEFAULT 0,
    not_before TEXT,
    error TEXT NOT NULL DEFAULT '',
    result_json TEXT,
    verdict_json TEXT,
    seconds_json TEXT NOT NULL DEFAULT '{}',
    created_at TEXT NOT NULL,
    finished_at TEXT,
    UNIQUE (person_id, version_n)
) STRICT;
CREATE INDEX job_open ON job (state);
CREATE UNIQUE INDEX one_open_job_per_person ON job (person_id) WHERE state IN ('leased', 'trained');

CREATE TABLE adapter_version (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    person_id INTEGER NOT NULL REFERENCES person(id),
    n INTEGER NOT NULL,
    parent_id INTEGER REFERENCES adapter_version(id),
    job_id TEXT NOT NULL UNIQUE REFERENCES job(id),
    state TEXT NOT NULL CHECK (state IN ('candidate', 'promoted', 'retired', 'rejected', 'quarantined')),
    folder TEXT NOT NULL,
    weights_sha256 TEXT NOT NULL,
    base_revision TEXT NOT NULL,
    created_at TEXT NOT NULL,
    changed_at TEXT NOT NULL,
    UNIQUE (person_id, n)
) STRICT;
CREATE UNIQUE INDEX one_promoted_per_person ON adapter_version (person_id) WHERE state = 'promoted';

CREATE TABLE inbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    platform TEXT NOT NULL,
    bot_account TEXT NOT NULL,
    chat TEXT NOT NULL,
    account TEXT NOT NULL,
    update_key TEXT NOT NULL,
    event_json TEXT NOT NULL,
    received_at TEXT NOT NULL,
    handled_at TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    UNIQUE (platform, bot_account, update_key)
) STRICT;
CREATE INDEX inbox_waiting ON inbox (id) WHERE handled_at IS NULL;

CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    person_id INTEGER NOT NULL REFERENCES person(id),
    platform TEXT NOT NULL,
    bot_account TEXT NOT NULL,
    chat TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('noted', 'queued', 'learned', 'refused')),
    message_key TEXT,
    experience_id INTEGER REFERENCES experience(id),
    data_json TEXT NOT NULL DEFAULT '{}',
    created_at TEXT NOT NULL,
    told_at TEXT,
    attempts INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX outbox_waiting ON outbox (id) WHERE told_at IS NULL;

CREATE TABLE admin_session (
    token_sha256 TEXT PRIMARY KEY,
    csrf_token TEXT NOT NULL,
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL
) STRICT;

CREATE TABLE sign_in_token (
    token_sha256 TEXT PRIMARY KEY,
    created_at TEXT NOT NULL,
    used_at TEXT
) STRICT;

CREATE TABLE switch (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    changed_at TEXT NOT NULL
) STRICT;

CREATE TABLE erasure (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    person_id INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('asked', 'done')),
    folders_json TEXT NOT NULL DEFAULT '[]',
    server_names_json TEXT NOT NULL DEFAULT '[]',
    job_ids_json TEXT NOT NULL DEFAULT '[]',
    restart_witness TEXT,
    asked_at TEXT NOT NULL,
    done_at TEXT
) STRICT;
"""


_CHAT_PLATFORMS = """
CREATE TABLE shown_message (
    platform TEXT NOT NULL,
    bot_account TEXT NOT NULL,
    chat TEXT NOT NULL,
    message_key TEXT NOT NULL,
    completion_id INTEGER NOT NULL REFERENCES completion(id),
    PRIMARY KEY (platform, bot_account, chat, message_key)
) STRICT;
CREATE INDEX shown_message_of_completion ON shown_message (completion_id);
INSERT INTO shown_message
    SELECT platform, bot_account, chat, message_key, id FROM completion WHERE message_key IS NOT NULL;
DROP INDEX completion_of_message;

CREATE TABLE chat (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    platform TEXT NOT NULL,
    bot_account TEXT NOT NULL,
    chat TEXT NOT NULL,
    is_group INTEGER NOT NULL CHECK (is_group IN (0, 1)),
    persona TEXT NOT NULL DEFAULT '',
    is_streaming INTEGER NOT NULL DEFAULT 1 CHECK (is_streaming IN (0, 1)),
    has_notices INTEGER CHECK (has_notices IN (0, 1)),
    learns_from TEXT NOT NULL DEFAULT 'everything' CHECK (learns_from IN ('everything', 'words')),
    gone_at TEXT,
    UNIQUE (platform, bot_account, chat)
) STRICT;

ALTER TABLE account ADD COLUMN role TEXT NOT NULL DEFAULT '' CHECK (role IN ('', 'allowed', 'admin', 'blocked'));
ALTER TABLE conversation ADD COLUMN parent_turn_id INTEGER REFERENCES turn(id);
ALTER TABLE conversation ADD COLUMN is_shortened INTEGER NOT NULL DEFAULT 0 CHECK (is_shortened IN (0, 1));
ALTER TABLE inbox ADD COLUMN began_at TEXT;
ALTER TABLE turn ADD COLUMN message_key TEXT;
ALTER TABLE turn ADD COLUMN deleted_at TEXT;
ALTER TABLE turn ADD COLUMN parts_json TEXT NOT NULL DEFAULT '[]';
ALTER TABLE turn ADD COLUMN is_interaction INTEGER NOT NULL DEFAULT 0 CHECK (is_interaction IN (0, 1));
ALTER TABLE turn ADD COLUMN is_forwarded INTEGER NOT NULL DEFAULT 0 CHECK (is_forwarded IN (0, 1));
ALTER TABLE feedback_event ADD COLUMN mark_key TEXT;
ALTER TABLE feedback_event ADD COLUMN is_interaction INTEGER NOT NULL DEFAULT 0 CHECK (is_interaction IN (0, 1));
ALTER TABLE feedback_event ADD COLUMN is_reason INTEGER NOT NULL DEFAULT 0 CHECK (is_reason IN (0, 1));
ALTER TABLE experience ADD COLUMN is_left_behind INTEGER NOT NULL DEFAULT 0 CHECK (is_left_behind IN (0, 1));
CREATE INDEX turn_of_message ON turn (message_key) WHERE message_key IS NOT NULL;

CREATE TABLE pairing (
    code TEXT PRIMARY KEY,
    platform TEXT NOT NULL,
    account TEXT NOT NULL,
    display_name TEXT NOT NULL,
    bot_account TEXT NOT NULL,
    chat TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    UNIQUE (platform, account)
) STRICT;

CREATE TABLE link_code (
    code TEXT PRIMARY KEY,
    person_id INTEGER NOT NULL REFERENCES person(id),
    expires_at TEXT NOT NULL
) STRICT;

CREATE TABLE comparison (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    person_id INTEGER NOT NULL REFERENCES person(id),
    question TEXT NOT NULL,
    first_version TEXT NOT NULL,
    second_version TEXT NOT NULL,
    choice TEXT CHECK (choice IN ('first', 'second', 'neither')),
    created_at TEXT NOT NULL
) STRICT;

CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    who TEXT NOT NULL,
    did TEXT NOT NULL,
    whom TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE outbox_with_cleared (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    person_id INTEGER NOT NULL REFERENCES person(id),
    platform TEXT NOT NULL,
    bot_account TEXT NOT NULL,
    chat TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('noted', 'queued', 'learned', 'refused', 'cleared')),
    message_key TEXT,
    experience_id INTEGER REFERENCES experience(id),
    data_json TEXT NOT NULL DEFAULT '{}',
    created_at TEXT NOT NULL,
    not_before TEXT,
    is_marked INTEGER NOT NULL DEFAULT 0 CHECK (is_marked IN (0, 1)),
    told_at TEXT,
    attempts INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO outbox_with_cleared (id, person_id, platform, bot_account, chat, kind, message_key, experience_id,
    data_json, created_at, told_at, attempts)
    SELECT id, person_id, platform, bot_account, chat, kind, message_key, experience_id,
    data_json, created_at, told_at, attempts FROM outbox;
DROP TABLE outbox;
ALTER TABLE outbox_with_cleared RENAME TO outbox;
CREATE INDEX outbox_waiting ON outbox (id) WHERE told_at IS NULL;
"""


@migrations()
def m001_spine(db: Database) -> None:
    _run(db, _SPINE)


@migrations()
def m002_chat_platforms(db: Database) -> None:
    _run(db, _CHAT_PLATFORMS)


def _run(db: Database, script: str) -> None:
    for statement in script.split(";\n"):
        if statement.strip():
            db.execute(statement)
