"""What nobody expected, by the id that a person was told."""

STATEMENTS = """
CREATE TABLE error (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    error_id TEXT NOT NULL UNIQUE,
    at TEXT NOT NULL,
    last_at TEXT NOT NULL,
    person_id INTEGER REFERENCES person(id),
    place TEXT NOT NULL,
    kind TEXT NOT NULL,
    trace TEXT NOT NULL,
    n INTEGER NOT NULL DEFAULT 1
) STRICT;
CREATE INDEX error_at ON error (last_at);
"""
