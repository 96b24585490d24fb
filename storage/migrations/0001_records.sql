-- Call records, the consent ledger, recordings and the audit log, as the journal's projection.
-- Instants are microseconds since 1970 UTC; ids are UUIDs as text; words are the contract's.
-- Everything that is stored carries a retention tag: upper case, 3 to 32 characters of A-Z 0-9 -.

CREATE TABLE call (
    id                TEXT NOT NULL PRIMARY KEY CHECK (length(id) = 36),
    node              TEXT NOT NULL,
    line              TEXT,
    line_class        TEXT NOT NULL CHECK (line_class IN ('dispatch', 'consent', 'never', 'union')),
    retention         TEXT NOT NULL CHECK (length(retention) BETWEEN 3 AND 32 AND retention NOT GLOB '*[^A-Z0-9-]*'),
    direction         TEXT NOT NULL CHECK (direction IN ('inbound', 'outbound', 'internal')),
    caller            TEXT,
    callee            TEXT,
    privacy           INTEGER NOT NULL CHECK (privacy IN (0, 1)),
    emergency         INTEGER NOT NULL CHECK (emergency IN (0, 1)),
    started_at        INTEGER NOT NULL,
    ringing_at        INTEGER,
    answered_at       INTEGER,
    ended_at          INTEGER,
    outcome           TEXT NOT NULL CHECK (outcome IN
        ('in-progress', 'answered', 'cancelled', 'busy', 'no-answer', 'rejected', 'failed')),
    final_status      INTEGER CHECK (final_status BETWEEN 100 AND 699),
    ended_by          TEXT CHECK (ended_by IN ('caller', 'callee', 'gateway')),
    recording_outcome TEXT CHECK (recording_outcome IN
        ('recorded', 'partly-recorded', 'not-permitted', 'refused', 'withdrawn', 'prompt-incomplete',
         'not-asked', 'never-line', 'union-line', 'emergency', 'failed')),
    basis             TEXT CHECK (basis IN ('dispatch-line', 'all-party-consent')),
    CHECK ((ended_at IS NULL) = (outcome = 'in-progress'))
) STRICT;

CREATE INDEX call_by_start ON call (started_at DESC, id DESC);
CREATE INDEX call_by_line ON call (line, started_at DESC);

CREATE TABLE call_leg (
    call_id     TEXT NOT NULL REFERENCES call (id),
    position    INTEGER NOT NULL,
    sip_call_id TEXT NOT NULL,
    PRIMARY KEY (call_id, sip_call_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE call_link (
    call_id TEXT NOT NULL REFERENCES call (id),
    -- Not a reference: the other call's record may be another gateway's.
    linked  TEXT NOT NULL,
    PRIMARY KEY (call_id, linked)
) STRICT, WITHOUT ROWID;

CREATE TABLE call_media (
    call_id   TEXT NOT NULL REFERENCES call (id),
    leg       TEXT NOT NULL CHECK (leg IN ('a', 'b')),
    codec     TEXT,
    packets   INTEGER NOT NULL,
    lost      INTEGER NOT NULL,
    jitter_ms REAL NOT NULL,
    mos       REAL,
    PRIMARY KEY (call_id, leg)
) STRICT, WITHOUT ROWID;

CREATE TABLE party (
    call_id        TEXT NOT NULL REFERENCES call (id),
    leg            TEXT NOT NULL CHECK (leg IN ('a', 'b')),
    ordinal        INTEGER NOT NULL,
    identity       TEXT,
    joined_at      INTEGER NOT NULL,
    left_at        INTEGER,
    consent        TEXT NOT NULL CHECK (consent IN
        ('not-asked', 'asked', 'given', 'declined', 'silent', 'withdrawn')),
    consent_method TEXT CHECK (consent_method IN
        ('telephone-event', 'info', 'in-band', 'record-preference')),
    consent_at     INTEGER,
    PRIMARY KEY (call_id, leg, ordinal)
) STRICT, WITHOUT ROWID;

-- The consent ledger: evidence, kept longer than the call's record (RT-CONSENT-EVID).
CREATE TABLE consent_signal (
    id        INTEGER PRIMARY KEY,
    call_id   TEXT NOT NULL REFERENCES call (id),
    at        INTEGER NOT NULL,
    leg       TEXT NOT NULL CHECK (leg IN ('a', 'b')),
    ordinal   INTEGER NOT NULL,
    meaning   TEXT NOT NULL CHECK (meaning IN ('accept', 'decline', 'request', 'withdraw')),
    source    TEXT NOT NULL CHECK (source IN
        ('telephone-event', 'info', 'in-band', 'record-preference')),
    effective INTEGER NOT NULL CHECK (effective IN (0, 1)),
    retention TEXT NOT NULL CHECK (length(retention) BETWEEN 3 AND 32 AND retention NOT GLOB '*[^A-Z0-9-]*')
) STRICT;

CREATE INDEX consent_signal_by_call ON consent_signal (call_id, id);

CREATE TABLE decision (
    id           INTEGER PRIMARY KEY,
    call_id      TEXT NOT NULL REFERENCES call (id),
    at           INTEGER NOT NULL,
    gate         TEXT NOT NULL CHECK (gate IN ('open', 'shut')),
    basis        TEXT CHECK (basis IN ('dispatch-line', 'all-party-consent')),
    clause       TEXT NOT NULL,
    rule_version INTEGER NOT NULL,
    reason       TEXT NOT NULL,
    parties      TEXT NOT NULL CHECK (json_valid(parties)),
    evidence     TEXT NOT NULL CHECK (json_valid(evidence)),
    otherwise    TEXT NOT NULL,
    retention    TEXT NOT NULL CHECK (length(retention) BETWEEN 3 AND 32 AND retention NOT GLOB '*[^A-Z0-9-]*'),
    -- The gate is open on a basis or it is not open.
    CHECK (gate = 'shut' OR basis IS NOT NULL)
) STRICT;

CREATE INDEX decision_by_call ON decision (call_id, id);

CREATE TABLE gate_interval (
    id           INTEGER PRIMARY KEY,
    call_id      TEXT NOT NULL REFERENCES call (id),
    opened_at    INTEGER NOT NULL,
    shut_at      INTEGER,
    basis        TEXT NOT NULL CHECK (basis IN ('dispatch-line', 'all-party-consent')),
    clause       TEXT NOT NULL,
    rule_version INTEGER NOT NULL,
    retention    TEXT NOT NULL CHECK (length(retention) BETWEEN 3 AND 32 AND retention NOT GLOB '*[^A-Z0-9-]*')
) STRICT;

CREATE INDEX gate_interval_by_call ON gate_interval (call_id, id);
-- At most one interval of a call is open.
CREATE UNIQUE INDEX gate_interval_open ON gate_interval (call_id) WHERE shut_at IS NULL;

CREATE TABLE preamble_wiped (
    id        INTEGER PRIMARY KEY,
    call_id   TEXT NOT NULL REFERENCES call (id),
    at        INTEGER NOT NULL,
    held_ms   INTEGER NOT NULL,
    reason    TEXT NOT NULL,
    retention TEXT NOT NULL CHECK (length(retention) BETWEEN 3 AND 32 AND retention NOT GLOB '*[^A-Z0-9-]*')
) STRICT;

CREATE INDEX preamble_wiped_by_call ON preamble_wiped (call_id, id);

CREATE TABLE recording (
    id           TEXT NOT NULL PRIMARY KEY CHECK (length(id) = 36),
    -- Not a reference: a sealed recording is entered even if its call's start was lost.
    call_id      TEXT NOT NULL CHECK (length(call_id) = 36),
    state        TEXT NOT NULL CHECK (state IN ('open', 'sealed', 'disposed')),
    line         TEXT,
    started_at   INTEGER NOT NULL,
    ended_at     INTEGER,
    duration_s   REAL,
    basis        TEXT NOT NULL CHECK (basis IN ('dispatch-line', 'all-party-consent')),
    rule_version INTEGER,
    channels     TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(channels)),
    codec        TEXT,
    bytes        INTEGER,
    sha256       TEXT CHECK (length(sha256) = 64),
    retention    TEXT NOT NULL CHECK (length(retention) BETWEEN 3 AND 32 AND retention NOT GLOB '*[^A-Z0-9-]*'),
    object       TEXT UNIQUE,
    wrapped_key  BLOB,
    intervals    TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(intervals)),
    gaps         TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(gaps)),
    quarantine   TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(quarantine)),
    failed_at    INTEGER,
    CHECK (state <> 'sealed' OR
        (ended_at IS NOT NULL AND duration_s IS NOT NULL AND rule_version IS NOT NULL AND codec IS NOT NULL
         AND bytes IS NOT NULL AND sha256 IS NOT NULL AND object IS NOT NULL AND wrapped_key IS NOT NULL))
) STRICT;

CREATE INDEX recording_by_start ON recording (started_at DESC, id DESC);
CREATE INDEX recording_by_call ON recording (call_id);

-- A sealed recording's record says what was sealed, for good.
CREATE TRIGGER recording_sealed_stays BEFORE UPDATE OF
    id, call_id, started_at, ended_at, duration_s, basis, rule_version, channels, codec, bytes, sha256, object,
    intervals, gaps
ON recording WHEN OLD.state <> 'open'
BEGIN SELECT RAISE(ABORT, 'a sealed recording is not changed'); END;

CREATE TRIGGER recording_sealed_is_not_deleted BEFORE DELETE ON recording WHEN OLD.state <> 'open'
BEGIN SELECT RAISE(ABORT, 'a sealed recording is not deleted'); END;

CREATE TABLE audit (
    seq       INTEGER PRIMARY KEY,
    at        INTEGER NOT NULL,
    actor     TEXT NOT NULL,
    action    TEXT NOT NULL,
    object    TEXT,
    detail    TEXT,
    previous  BLOB NOT NULL CHECK (length(previous) = 32),
    hash      BLOB NOT NULL CHECK (length(hash) = 32),
    retention TEXT NOT NULL DEFAULT 'RT-AUDIT'
        CHECK (length(retention) BETWEEN 3 AND 32 AND retention NOT GLOB '*[^A-Z0-9-]*')
) STRICT;

-- These stop a mistake; against intent there is the chain.
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is only appended to'); END;

CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is only appended to'); END;

-- How far each journal is delivered: written in the same transaction as what it delivered.
CREATE TABLE delivery (
    journal TEXT NOT NULL PRIMARY KEY CHECK (length(journal) = 32),
    seq     INTEGER NOT NULL,
    at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Entries that fit no table (their call's start was lost, a later version wrote them): kept as they are.
CREATE TABLE unplaced (
    journal   TEXT NOT NULL,
    seq       INTEGER NOT NULL,
    call_id   TEXT,
    entry     TEXT NOT NULL,
    why       TEXT NOT NULL CHECK (why IN ('call-unknown', 'entry-unknown', 'refused-by-schema')),
    retention TEXT NOT NULL CHECK (length(retention) BETWEEN 3 AND 32 AND retention NOT GLOB '*[^A-Z0-9-]*'),
    PRIMARY KEY (journal, seq)
) STRICT, WITHOUT ROWID;
