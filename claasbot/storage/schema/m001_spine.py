"""People, conversations, feedback, jobs, versions and the queues between the stages."""

STATEMENTS = """
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
