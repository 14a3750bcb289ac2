-- The ledger in a PostgreSQL database, and what lies beside it: what ledger.py,
-- renamings.py, grants.py and listings.py make in SQLite files.
CREATE TABLE record (
    id                BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    record_id         BYTEA   NOT NULL UNIQUE,
    marked_digest     BYTEA   NOT NULL,
    epoch             INTEGER NOT NULL,  -- of its stanza; 0 where it has none
    study             TEXT    NOT NULL,  -- Study Instance UID; '' where unknown
    header            BYTEA   NOT NULL,
    payload           BYTEA   NOT NULL,
    created           TEXT    NOT NULL
);
CREATE INDEX record_by_digest ON record (marked_digest, id);
CREATE INDEX record_by_epoch ON record (epoch, id);

CREATE TABLE rewrapped (
    record_id         BYTEA   PRIMARY KEY,
    epoch             INTEGER NOT NULL,
    body              BYTEA   NOT NULL
);

CREATE TABLE shredded (
    record_id         BYTEA   PRIMARY KEY,
    by                TEXT    NOT NULL,
    at                TEXT    NOT NULL
);

CREATE TABLE marked (
    source            BYTEA   PRIMARY KEY,  -- keyed hash of the original
    marked_digest     BYTEA   NOT NULL,
    sealed            BYTEA                 -- null once it was shredded
);
CREATE INDEX marked_by_digest ON marked (marked_digest);

CREATE TABLE numbered (last BIGINT NOT NULL);
INSERT INTO numbered VALUES (0);

CREATE TABLE renamed (
    source            BYTEA   PRIMARY KEY,  -- keyed hash of the original's UID
    derived           TEXT    NOT NULL      -- SOP Instance UID that it went out under
);

-- Grants, each with the signature of the site.
CREATE TABLE entry (
    number            BIGINT  PRIMARY KEY,
    body              BYTEA   NOT NULL,
    signature         BYTEA   NOT NULL
);

-- What was sent and is not listed yet, and lists of this site.
CREATE TABLE sent (
    id                BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    route             TEXT    NOT NULL,
    study             TEXT    NOT NULL,
    sop_instance_uid  TEXT    NOT NULL,
    listed            BYTEA   NOT NULL,
    at                TEXT COLLATE "C" NOT NULL,
    UNIQUE (route, sop_instance_uid)
);
CREATE TABLE list (digest BYTEA PRIMARY KEY);

-- The nodes that work off this queue, and the folder that its files lie in.
CREATE TABLE node (
    name              TEXT    PRIMARY KEY,
    token             TEXT    NOT NULL,  -- in the shared folder, as long as it runs
    rules             TEXT    NOT NULL,  -- digest of the routes that it goes by
    seen              TIMESTAMPTZ NOT NULL
);
CREATE TABLE folder (id TEXT NOT NULL);
