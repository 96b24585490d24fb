-- What was verified of the caller's number, and whether an outbound call showed one that is not the district's.

ALTER TABLE call ADD COLUMN verstat TEXT CHECK (verstat IN ('passed', 'failed', 'not-done'));
ALTER TABLE call ADD COLUMN attestation TEXT CHECK (attestation IN ('A', 'B', 'C'));
ALTER TABLE call ADD COLUMN foreign_caller_id INTEGER NOT NULL DEFAULT 0 CHECK (foreign_caller_id IN (0, 1));
