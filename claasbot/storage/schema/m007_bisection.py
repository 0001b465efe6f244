"""A batch that no attempt could train is halved until the row that breaks it stands alone."""

STATEMENTS = """
ALTER TABLE experience ADD COLUMN max_batch INTEGER CHECK (max_batch >= 1);
"""
