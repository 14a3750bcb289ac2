-- The queue in a PostgreSQL database: what schema.sql, tallies.sql, history.sql and
-- commitments_schema.sql are to a SQLite file. Times are texts that sort as time does.
CREATE TABLE instance (
    id                  BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sop_instance_uid    TEXT COLLATE "C" NOT NULL,
    study_instance_uid  TEXT COLLATE "C" NOT NULL,
    digest              BYTEA NOT NULL,    -- SHA-256 of transfer syntax and data set
    file                TEXT,              -- name in the spool; null once nobody is owed it
    received            TEXT COLLATE "C" NOT NULL,
    sop_class_uid       TEXT NOT NULL,
    calling_ae_title    TEXT COLLATE "C" NOT NULL,
    patient             TEXT COLLATE "C" NOT NULL
);
CREATE INDEX instance_by_uid ON instance (sop_instance_uid);
CREATE INDEX instance_with_file ON instance (id) WHERE file IS NOT NULL;
CREATE INDEX instance_without_file ON instance (received) WHERE file IS NULL;
CREATE INDEX instance_of_study ON instance (study_instance_uid);
CREATE INDEX instance_of_caller ON instance (calling_ae_title, id);

CREATE TABLE job (
    id                  BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instance_id         BIGINT NOT NULL,
    study_instance_uid  TEXT COLLATE "C" NOT NULL,
    route               TEXT COLLATE "C" NOT NULL,
    destination         TEXT COLLATE "C" NOT NULL,
    priority            INTEGER NOT NULL,
    lane                TEXT COLLATE "C" NOT NULL,
    state               TEXT COLLATE "C" NOT NULL,
    attempts            INTEGER NOT NULL,
    claim               INTEGER NOT NULL DEFAULT 0,
    crashes             INTEGER NOT NULL DEFAULT 0,
    faults              INTEGER NOT NULL DEFAULT 0,
    ordered             INTEGER NOT NULL DEFAULT 0,
    not_before          TEXT COLLATE "C" NOT NULL,
    lease_until         TEXT COLLATE "C",
    node                TEXT COLLATE "C" NOT NULL DEFAULT '',  -- which claimed it last
    filtered            TEXT,              -- name in the spool of what is to be sent
    purpose             TEXT,              -- what it was filtered for
    reason              TEXT NOT NULL,
    settled             TEXT COLLATE "C" NOT NULL DEFAULT '',
    receiver            TEXT NOT NULL DEFAULT ''
);
CREATE INDEX job_by_state ON job (state);
CREATE INDEX job_by_instance ON job (instance_id);
CREATE INDEX job_with_filtered ON job (id) WHERE filtered IS NOT NULL;
CREATE INDEX job_due ON job (lane, route, destination, priority, not_before, id)
 WHERE state = 'waiting';
CREATE INDEX job_of_study
    ON job (study_instance_uid, route, destination, priority DESC, not_before, id)
 WHERE state = 'waiting';
CREATE INDEX job_working ON job (lane, lease_until) WHERE state = 'working';
CREATE INDEX job_owed ON job (route, destination, id)
 WHERE state IN ('waiting', 'working');
CREATE INDEX job_on_route ON job (route);
CREATE INDEX job_to_destination ON job (destination);

-- What the audit has not been told yet (note.py): a row for each instance, so that
-- nobody waits for anybody to count.
CREATE TABLE note (
    batch      TEXT COLLATE "C" NOT NULL DEFAULT '',  -- empty until somebody takes it
    node       TEXT COLLATE "C" NOT NULL DEFAULT '',  -- who did
    kind       TEXT COLLATE "C" NOT NULL,             -- received, sent
    peer       TEXT COLLATE "C" NOT NULL,
    route      TEXT COLLATE "C" NOT NULL,
    action     TEXT COLLATE "C" NOT NULL,
    study      TEXT COLLATE "C" NOT NULL,
    patient    TEXT COLLATE "C" NOT NULL,
    sop_class  TEXT COLLATE "C" NOT NULL,
    at         TEXT COLLATE "C" NOT NULL
);
CREATE INDEX note_of_batch ON note (batch, kind, peer, route, action, study, patient);

CREATE TABLE glass (
    job_id    BIGINT PRIMARY KEY,
    by        TEXT NOT NULL,
    why       TEXT NOT NULL,
    at        TEXT COLLATE "C" NOT NULL,
    priority  INTEGER NOT NULL,            -- that the job had before
    receiver  TEXT NOT NULL DEFAULT ''
);

CREATE TABLE held_route (
    route  TEXT COLLATE "C" PRIMARY KEY,
    by     TEXT NOT NULL,
    why    TEXT NOT NULL,
    since  TEXT NOT NULL
);

CREATE TABLE study (
    route               TEXT COLLATE "C" NOT NULL,
    study_instance_uid  TEXT COLLATE "C" NOT NULL,
    stage               TEXT NOT NULL,
    arrived             INTEGER NOT NULL,
    expected            INTEGER NOT NULL,  -- 0 for unknown
    due                 TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (route, study_instance_uid)
);
CREATE INDEX study_due ON study (due) WHERE stage <> 'complete';
CREATE INDEX study_complete ON study (due) WHERE stage = 'complete';

CREATE TABLE commitment (
    job_id            BIGINT PRIMARY KEY,
    destination       TEXT COLLATE "C" NOT NULL,
    study             TEXT COLLATE "C" NOT NULL,
    sop_class_uid     TEXT NOT NULL,       -- as it was sent
    sop_instance_uid  TEXT NOT NULL,
    sent              TEXT COLLATE "C" NOT NULL,
    due               TEXT COLLATE "C" NOT NULL,
    asks              INTEGER NOT NULL,
    refusals          INTEGER NOT NULL,
    is_open           INTEGER NOT NULL,    -- 0 while it is sent again
    reason            TEXT NOT NULL
);
CREATE INDEX commitment_due_to ON commitment (destination, due) WHERE is_open = 1;
CREATE INDEX commitment_of_study ON commitment (destination, study);

CREATE TABLE commitment_asked (
    transaction_uid  TEXT COLLATE "C" NOT NULL,
    job_id           BIGINT NOT NULL,
    number           INTEGER NOT NULL,
    PRIMARY KEY (transaction_uid, job_id)
);
CREATE INDEX commitment_asked_for ON commitment_asked (job_id);

CREATE TABLE commitment_request (
    id               BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    peer             TEXT COLLATE "C" NOT NULL,
    transaction_uid  TEXT COLLATE "C" NOT NULL,
    instances        TEXT NOT NULL,        -- pairs of SOP class and instance, JSON
    not_before       TEXT COLLATE "C" NOT NULL,
    attempts         INTEGER NOT NULL,
    reason           TEXT NOT NULL,
    UNIQUE (peer, transaction_uid)
);

-- Counts. Each change is a row of its own, so that nobody waits for anybody to count;
-- from time to time rows are put together. What is read is their sum.
CREATE TABLE total_part (
    route        TEXT COLLATE "C" NOT NULL,
    destination  TEXT COLLATE "C" NOT NULL,
    what         TEXT COLLATE "C" NOT NULL,
    count        BIGINT NOT NULL
);
CREATE VIEW total AS
SELECT route, destination, what, sum(count) AS count FROM total_part
 GROUP BY route, destination, what;

CREATE TABLE event_part (
    what         TEXT COLLATE "C" NOT NULL,
    route        TEXT COLLATE "C" NOT NULL,
    destination  TEXT COLLATE "C" NOT NULL,
    times        BIGINT NOT NULL
);
CREATE VIEW event AS
SELECT what, route, destination, sum(times) AS times FROM event_part
 GROUP BY what, route, destination;

CREATE TABLE minute_part (
    minute       TEXT COLLATE "C" NOT NULL,
    route        TEXT COLLATE "C" NOT NULL,
    destination  TEXT COLLATE "C" NOT NULL,
    what         TEXT COLLATE "C" NOT NULL,
    count        BIGINT NOT NULL
);
CREATE INDEX minute_of ON minute_part (minute, route, destination);
CREATE VIEW minute AS
SELECT minute, route, destination, what, sum(count) AS count FROM minute_part
 GROUP BY minute, route, destination, what;

CREATE TABLE pace_part (
    slot   TEXT COLLATE "C" NOT NULL,
    what   TEXT COLLATE "C" NOT NULL,
    times  BIGINT NOT NULL
);
CREATE INDEX pace_of ON pace_part (slot);
CREATE VIEW pace AS
SELECT slot, what, sum(times) AS times FROM pace_part GROUP BY slot, what;

CREATE TABLE step (
    number       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instance_id  BIGINT NOT NULL,
    job_id       BIGINT,
    at           TEXT NOT NULL,
    what         TEXT NOT NULL,
    about        TEXT NOT NULL
);
CREATE INDEX step_of ON step (instance_id, number);

CREATE FUNCTION moment() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC',
                   'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')
$$;

CREATE FUNCTION instance_came() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO event_part VALUES ('received', '', '', 1);
    INSERT INTO pace_part VALUES (substr(NEW.received, 1, 15), 'received', 1);
    INSERT INTO step (instance_id, at, what, about)
    VALUES (NEW.id, NEW.received, 'received', NEW.calling_ae_title);
    INSERT INTO note (kind, peer, route, action, study, patient, sop_class, at)
    VALUES ('received', NEW.calling_ae_title, '', '', NEW.study_instance_uid,
            NEW.patient, NEW.sop_class_uid, NEW.received);
    RETURN NULL;
END $$;
CREATE TRIGGER instance_came AFTER INSERT ON instance
   FOR EACH ROW EXECUTE FUNCTION instance_came();

CREATE FUNCTION instance_went() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM step WHERE instance_id = OLD.id;
    RETURN NULL;
END $$;
CREATE TRIGGER instance_went AFTER DELETE ON instance
   FOR EACH ROW EXECUTE FUNCTION instance_went();

CREATE FUNCTION job_began() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO total_part
    VALUES (NEW.route, NEW.destination, NEW.state, 1),
           (NEW.route, NEW.destination, 'received', 1);
    INSERT INTO minute_part
    SELECT substr(received, 1, 16), NEW.route, NEW.destination, 'received', 1
      FROM instance WHERE id = NEW.instance_id;
    INSERT INTO event_part VALUES ('owed', NEW.route, NEW.destination, 1);
    IF NEW.state IN ('held', 'quarantined') THEN
        INSERT INTO event_part VALUES (NEW.state, NEW.route, NEW.destination, 1);
    END IF;
    INSERT INTO step (instance_id, job_id, at, what, about)
    VALUES (NEW.instance_id, NEW.id, moment(),
            CASE NEW.state WHEN 'waiting' THEN 'owed' ELSE NEW.state END, NEW.reason);
    RETURN NULL;
END $$;
CREATE TRIGGER job_began AFTER INSERT ON job
   FOR EACH ROW EXECUTE FUNCTION job_began();

CREATE FUNCTION job_went() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM step WHERE instance_id = OLD.instance_id AND job_id = OLD.id;
    -- Only what is settled is deleted; anything else never was.
    IF OLD.state NOT IN ('sent', 'dropped') THEN
        INSERT INTO total_part
        VALUES (OLD.route, OLD.destination, OLD.state, -1),
               (OLD.route, OLD.destination, 'received', -1);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER job_went AFTER DELETE ON job
   FOR EACH ROW EXECUTE FUNCTION job_went();

CREATE FUNCTION job_moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.route, OLD.destination) <> (NEW.route, NEW.destination) THEN
        INSERT INTO total_part
        VALUES (OLD.route, OLD.destination, 'received', -1),
               (NEW.route, NEW.destination, 'received', 1);
    END IF;
    INSERT INTO total_part
    VALUES (OLD.route, OLD.destination, OLD.state, -1),
           (NEW.route, NEW.destination, NEW.state, 1);
    IF NEW.state = 'sent' AND OLD.state <> 'sent' THEN
        INSERT INTO minute_part
        VALUES (substr(NEW.settled, 1, 16), NEW.route, NEW.destination, 'sent', 1);
        INSERT INTO note (kind, peer, route, action, study, patient, sop_class, at)
        SELECT 'sent',
               CASE NEW.receiver WHEN '' THEN NEW.destination ELSE NEW.receiver END,
               NEW.route,
               CASE WHEN NEW.ordered = 1 THEN 'break-glass'
                    ELSE split_part(coalesce(NEW.purpose, 'pass'), ' ', 1) END,
               study_instance_uid, patient, sop_class_uid, NEW.settled
          FROM instance WHERE id = NEW.instance_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER job_moved AFTER UPDATE OF state, route, destination ON job
   FOR EACH ROW WHEN ((OLD.state, OLD.route, OLD.destination)
                      IS DISTINCT FROM (NEW.state, NEW.route, NEW.destination))
   EXECUTE FUNCTION job_moved();

CREATE FUNCTION job_stepped() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    happened TEXT;
BEGIN
    INSERT INTO step (instance_id, job_id, at, what, about)
    VALUES (NEW.instance_id, NEW.id, moment(),
            CASE WHEN NEW.state = 'working' THEN 'begun'
                 WHEN NEW.state <> 'waiting' THEN NEW.state
                 WHEN OLD.state = 'working' THEN 'put back'
                 ELSE 'released' END,
            CASE NEW.state WHEN 'working' THEN '' ELSE NEW.reason END);
    happened = CASE
        WHEN NEW.state = 'waiting' AND OLD.state = 'working' AND NEW.reason <> ''
            THEN 'failed'
        WHEN NEW.state = 'sent' AND NEW.ordered = 1 THEN 'sent as it came'
        WHEN NEW.state = 'sent' AND NEW.purpose LIKE 'mark %' THEN 'sent marked'
        WHEN NEW.state = 'sent' AND NEW.purpose LIKE 'strip %' THEN 'sent stripped'
        WHEN NEW.state = 'sent' AND NEW.purpose LIKE 'refer %' THEN 'sent referring'
        WHEN NEW.state = 'sent' THEN 'sent as it came'
        WHEN NEW.state IN ('held', 'quarantined', 'dropped') THEN NEW.state END;
    IF happened IS NOT NULL THEN
        INSERT INTO event_part VALUES (happened, NEW.route, NEW.destination, 1);
    END IF;
    IF NEW.state = 'sent' THEN
        INSERT INTO pace_part VALUES (substr(NEW.settled, 1, 15), 'sent', 1);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER job_stepped AFTER UPDATE OF state, claim ON job
   FOR EACH ROW WHEN ((NEW.state, NEW.claim) IS DISTINCT FROM (OLD.state, OLD.claim))
   EXECUTE FUNCTION job_stepped();

CREATE FUNCTION job_ready() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO step (instance_id, job_id, at, what, about)
    VALUES (NEW.instance_id, NEW.id, moment(), 'ready', NEW.purpose);
    INSERT INTO event_part
    VALUES (split_part(NEW.purpose, ' ', 1) || ' ready', NEW.route, NEW.destination, 1);
    RETURN NULL;
END $$;
CREATE TRIGGER job_ready AFTER UPDATE OF filtered ON job
   FOR EACH ROW WHEN (NEW.filtered IS NOT NULL
                      AND NEW.filtered IS DISTINCT FROM OLD.filtered)
   EXECUTE FUNCTION job_ready();
