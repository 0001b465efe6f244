"""What an erasure leaves behind as its receipt, and what was emptied or removed because it was old."""

STATEMENTS = """
ALTER TABLE erasure ADD COLUMN receipt TEXT NOT NULL DEFAULT '';
ALTER TABLE erasure ADD COLUMN counts_json TEXT NOT NULL DEFAULT '{}';
ALTER TABLE erasure ADD COLUMN person_made_at TEXT NOT NULL DEFAULT '';
ALTER TABLE erasure ADD COLUMN joined_into INTEGER;
ALTER TABLE completion ADD COLUMN emptied_at TEXT;
ALTER TABLE adapter_version ADD COLUMN files_removed_at TEXT;
CREATE INDEX experience_of_completion ON experience (completion_id);
CREATE INDEX feedback_of_completion ON feedback_event (completion_id);
CREATE INDEX turn_of_completion ON turn (completion_id) WHERE completion_id IS NOT NULL;
CREATE INDEX completion_of_conversation ON completion (conversation_id);
CREATE INDEX completion_of_retry ON completion (retry_of) WHERE retry_of IS NOT NULL;
CREATE INDEX conversation_of_parent ON conversation (parent_turn_id) WHERE parent_turn_id IS NOT NULL;
CREATE INDEX completion_by_time ON completion (created_at) WHERE emptied_at IS NULL;
CREATE INDEX question_by_time ON turn (created_at) WHERE role = 'user';
CREATE INDEX outbox_of_experience ON outbox (experience_id);
"""
