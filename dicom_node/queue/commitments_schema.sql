-- What was sent and is to be kept by its destination, until that has promised to.
CREATE TABLE IF NOT EXISTS commitment (
    job_id            INTEGER PRIMARY KEY REFERENCES job (id),
    destination       TEXT NOT NULL,     -- which has it
    study             TEXT NOT NULL,
    sop_class_uid     TEXT NOT NULL,     -- as it was sent
    sop_instance_uid  TEXT NOT NULL,
    sent              TEXT NOT NULL,
    due               TEXT NOT NULL,     -- when it is asked for, or asked for again
    asks              INTEGER NOT NULL,
    refusals          INTEGER NOT NULL,  -- how often the destination would not keep it
    is_open           INTEGER NOT NULL,  -- 0 while it is sent again
    reason            TEXT NOT NULL
);
DROP INDEX IF EXISTS commitment_due;  -- of earlier versions
CREATE INDEX IF NOT EXISTS commitment_due_to ON commitment (destination, due)
 WHERE is_open;
CREATE INDEX IF NOT EXISTS commitment_of_study ON commitment (destination, study);

-- Under which transactions it was asked for lately.
CREATE TABLE IF NOT EXISTS commitment_asked (
    transaction_uid  TEXT NOT NULL,
    job_id           INTEGER NOT NULL REFERENCES commitment (job_id),
    number           INTEGER NOT NULL DEFAULT 0,  -- which time it was
    PRIMARY KEY (transaction_uid, job_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS commitment_asked_for ON commitment_asked (job_id);

-- What peers have asked us, until they are told.
CREATE TABLE IF NOT EXISTS commitment_request (
    id               INTEGER PRIMARY KEY,
    peer             TEXT NOT NULL,
    transaction_uid  TEXT NOT NULL,
    instances        TEXT NOT NULL,      -- pairs of SOP class and instance, JSON
    not_before       TEXT NOT NULL,
    attempts         INTEGER NOT NULL,
    reason           TEXT NOT NULL,
    UNIQUE (peer, transaction_uid)
);
