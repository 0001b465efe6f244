"""Several admins with roles, passwords and second factors; sessions that name their admin; API keys."""

STATEMENTS = """
CREATE TABLE admin (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL CHECK (role IN ('viewer', 'admin', 'owner')),
    password_hash TEXT NOT NULL DEFAULT '',
    totp_secret TEXT NOT NULL DEFAULT '',
    totp_confirmed_at TEXT,
    totp_last_step INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL,
    removed_at TEXT
) STRICT;

CREATE TABLE recovery_code (
    code_sha256 TEXT PRIMARY KEY,
    admin_id INTEGER NOT NULL REFERENCES admin(id)
) STRICT;

DROP TABLE admin_session;
CREATE TABLE admin_session (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    token_sha256 TEXT NOT NULL UNIQUE,
    csrf_token TEXT NOT NULL,
    admin_id INTEGER NOT NULL REFERENCES admin(id),
    is_by_link INTEGER NOT NULL CHECK (is_by_link IN (0, 1)),
    address TEXT NOT NULL,
    browser TEXT NOT NULL,
    created_at TEXT NOT NULL,
    last_seen_at TEXT NOT NULL,
    expires_at TEXT NOT NULL
) STRICT;

ALTER TABLE sign_in_token ADD COLUMN admin_id INTEGER REFERENCES admin(id);

CREATE TABLE api_key (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    token_sha256 TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    scopes TEXT NOT NULL,
    made_by TEXT NOT NULL,
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    last_used_at TEXT,
    revoked_at TEXT
) STRICT;
"""
