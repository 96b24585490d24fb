-- Why the gateway ended a call by itself.

ALTER TABLE call ADD COLUMN end_cause TEXT CHECK (end_cause IN ('session-expired'));
