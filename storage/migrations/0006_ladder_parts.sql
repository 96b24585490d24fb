-- The messages of a ladder as they are told, in parts: a row for each message took longer to write than all the rest
-- of a call's record.

CREATE TABLE ladder_part (
    call_id TEXT NOT NULL REFERENCES ladder (call_id),
    -- The n-th of its call.
    part    INTEGER NOT NULL,
    rungs   TEXT NOT NULL CHECK (json_valid(rungs)),
    PRIMARY KEY (call_id, part)
) STRICT, WITHOUT ROWID;

INSERT INTO ladder_part (call_id, part, rungs)
SELECT call_id, 0,
       json_group_array(json_object('position', position, 'after_ms', after_ms, 'leg', leg, 'peer', peer,
                                    'sent', json(iif(sent, 'true', 'false')), 'message', message, 'method', method,
                                    'sdp', json(iif(sdp, 'true', 'false')), 'repeats', repeats))
FROM rung
GROUP BY call_id;

DROP TABLE rung;
