-- What the far end of a leg said of its own recording of the call (RFC 7866); it goes when the call's record goes.

CREATE TABLE recorded_elsewhere (
    id      INTEGER PRIMARY KEY,
    call_id TEXT NOT NULL REFERENCES call (id),
    at      INTEGER NOT NULL,
    leg     TEXT NOT NULL CHECK (leg IN ('a', 'b')),
    state   TEXT NOT NULL CHECK (state IN ('off', 'paused', 'on'))
) STRICT;

CREATE INDEX recorded_elsewhere_by_call ON recorded_elsewhere (call_id, id);
