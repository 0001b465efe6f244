"""The audit as a chain: each row carries a hash of all before it, and nothing but an erasure ever changes one."""

STATEMENTS = """
ALTER TABLE audit ADD COLUMN who_salt TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN whom_salt TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN who_sha256 TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN whom_sha256 TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN chain_sha256 TEXT NOT NULL DEFAULT '';
CREATE TRIGGER audit_rows_stay BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'audit rows are never deleted'); END;
CREATE TRIGGER audit_rows_do_not_change BEFORE UPDATE ON audit
    WHEN OLD.chain_sha256 != '' AND (NEW.id, NEW.at, NEW.did, NEW.who_sha256, NEW.whom_sha256, NEW.chain_sha256)
        IS NOT (OLD.id, OLD.at, OLD.did, OLD.who_sha256, OLD.whom_sha256, OLD.chain_sha256)
    BEGIN SELECT RAISE(ABORT, 'audit rows are never changed'); END;
CREATE TRIGGER audit_names_only_go BEFORE UPDATE ON audit
    WHEN OLD.chain_sha256 != '' AND ((NEW.who IS NOT OLD.who AND NEW.who_salt != '')
        OR (NEW.whom IS NOT OLD.whom AND NEW.whom_salt != ''))
    BEGIN SELECT RAISE(ABORT, 'a name in the audit only ever goes'); END;
"""
