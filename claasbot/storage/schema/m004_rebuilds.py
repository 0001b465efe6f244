"""Lessons that were taken back, and the jobs that go through the other ones again."""

STATEMENTS = """
CREATE TABLE revocation (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    person_id INTEGER NOT NULL REFERENCES person(id),
    asked_at TEXT NOT NULL,
    done_at TEXT
) STRICT;
CREATE INDEX revocation_asked ON revocation (person_id) WHERE done_at IS NULL;

CREATE TABLE revoked_experience (
    experience_id INTEGER PRIMARY KEY REFERENCES experience(id) ON DELETE CASCADE,
    revocation_id INTEGER NOT NULL REFERENCES revocation(id) ON DELETE CASCADE
) STRICT;
CREATE INDEX revoked_experience_of_revocation ON revoked_experience (revocation_id);

CREATE TABLE replay (
    job_id TEXT NOT NULL REFERENCES job(id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    lesson_job_id TEXT NOT NULL REFERENCES job(id) ON DELETE CASCADE,
    experience_id INTEGER NOT NULL REFERENCES experience(id) ON DELETE CASCADE,
    PRIMARY KEY (job_id, position, experience_id)
) STRICT;
CREATE INDEX replay_of_experience ON replay (experience_id);
CREATE INDEX replay_of_lesson ON replay (lesson_job_id);

ALTER TABLE job ADD COLUMN is_rebuild INTEGER NOT NULL DEFAULT 0 CHECK (is_rebuild IN (0, 1));
ALTER TABLE adapter_version ADD COLUMN is_leaving INTEGER NOT NULL DEFAULT 0 CHECK (is_leaving IN (0, 1));
CREATE INDEX version_leaving ON adapter_version (id) WHERE is_leaving;
"""
