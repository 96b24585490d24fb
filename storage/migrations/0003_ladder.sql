-- The SIP messages of a call, without bodies and with roles in place of numbers; it goes when the call's record goes.

CREATE TABLE ladder (
    call_id   TEXT NOT NULL PRIMARY KEY REFERENCES call (id),
    -- Messages that were too many to keep.
    left_out  INTEGER NOT NULL,
    retention TEXT NOT NULL CHECK (length(retention) BETWEEN 3 AND 32 AND retention NOT GLOB '*[^A-Z0-9-]*')
) STRICT, WITHOUT ROWID;

CREATE TABLE rung (
    call_id  TEXT NOT NULL REFERENCES ladder (call_id),
    position INTEGER NOT NULL,
    after_ms INTEGER NOT NULL,
    leg      TEXT NOT NULL CHECK (leg IN ('a', 'b')),
    peer     TEXT NOT NULL,
    sent     INTEGER NOT NULL CHECK (sent IN (0, 1)),
    message  TEXT NOT NULL,
    method   TEXT NOT NULL,
    sdp      INTEGER NOT NULL CHECK (sdp IN (0, 1)),
    repeats  INTEGER NOT NULL,
    PRIMARY KEY (call_id, position)
) STRICT, WITHOUT ROWID;
