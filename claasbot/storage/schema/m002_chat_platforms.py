"""Chats on platforms: what was shown where, who may chat, pairing, comparisons, the audit."""

STATEMENTS = """
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
