-- Instances that came in, and what is owed of each.
CREATE TABLE IF NOT EXISTS instance (
    id                INTEGER PRIMARY KEY,
    sop_instance_uid  TEXT NOT NULL,
    digest            BLOB NOT NULL,  -- SHA-256 of transfer syntax and data set
    file              TEXT,           -- name in the spool; null once nobody is owed it
    received          TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS instance_by_uid ON instance (sop_instance_uid);
CREATE INDEX IF NOT EXISTS instance_with_file ON instance (id) WHERE file IS NOT NULL;

CREATE TABLE IF NOT EXISTS job (
    id           INTEGER PRIMARY KEY,
    instance_id  INTEGER NOT NULL REFERENCES instance (id),
    route        TEXT NOT NULL,
    state        TEXT NOT NULL,
    attempts     INTEGER NOT NULL,
    not_before   TEXT NOT NULL,
    lease_until  TEXT,
    filtered     TEXT,                -- name in the spool of what is to be sent
    purpose      TEXT,                -- what it was filtered for: action and destination
    reason       TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS job_by_state ON job (state);
CREATE INDEX IF NOT EXISTS job_by_instance ON job (instance_id);
CREATE INDEX IF NOT EXISTS job_with_filtered ON job (id) WHERE filtered IS NOT NULL;

-- What the audit has not been told yet (note.py).
CREATE TABLE IF NOT EXISTS note (
    batch      TEXT NOT NULL,  -- empty until somebody takes it
    kind       TEXT NOT NULL,  -- received, sent
    peer       TEXT NOT NULL,
    route      TEXT NOT NULL,
    action     TEXT NOT NULL,
    study      TEXT NOT NULL,
    patient    TEXT NOT NULL,
    sop_class  TEXT NOT NULL,
    count      INTEGER NOT NULL,
    first      TEXT NOT NULL,
    last       TEXT NOT NULL,
    PRIMARY KEY (batch, kind, peer, route, action, study, patient, sop_class)
) WITHOUT ROWID;

-- Orders of people to send an instance as it came by a route that marks; of open jobs.
CREATE TABLE IF NOT EXISTS glass (
    job_id    INTEGER PRIMARY KEY REFERENCES job (id),
    by        TEXT NOT NULL,
    why       TEXT NOT NULL,
    at        TEXT NOT NULL,
    priority  INTEGER NOT NULL        -- that the job had before
);

-- Routes that rest since somebody wanted that.
CREATE TABLE IF NOT EXISTS held_route (
    route  TEXT PRIMARY KEY,
    by     TEXT NOT NULL,
    why    TEXT NOT NULL,
    since  TEXT NOT NULL
) WITHOUT ROWID;

-- Studies that wait to be complete, and that were lately.
CREATE TABLE IF NOT EXISTS study (
    route               TEXT NOT NULL,
    study_instance_uid  TEXT NOT NULL,
    stage               TEXT NOT NULL,
    arrived             INTEGER NOT NULL,
    expected            INTEGER NOT NULL,  -- 0 for unknown
    due                 TEXT NOT NULL,     -- complete then, or since then
    PRIMARY KEY (route, study_instance_uid)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS study_due ON study (due) WHERE stage <> 'complete';
CREATE INDEX IF NOT EXISTS study_complete ON study (due) WHERE stage = 'complete';
