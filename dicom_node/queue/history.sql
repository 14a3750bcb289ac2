-- What people are shown of a queue, beside its totals: what happened, and how fast. Kept by triggers, so that whoever changes a job in whichever way keeps it, in the same
-- transaction; and counted as it happens, so that nothing is counted when it is asked.

-- How often something happened, ever: jobs that are deleted stay counted.
CREATE TABLE IF NOT EXISTS event (
    what         TEXT NOT NULL,
    route        TEXT NOT NULL,
    destination  TEXT NOT NULL,
    times        INTEGER NOT NULL,
    PRIMARY KEY (what, route, destination)
) WITHOUT ROWID;

-- Likewise, in each ten minutes: a time without its last digits names them.
CREATE TABLE IF NOT EXISTS pace (
    slot   TEXT NOT NULL,
    what   TEXT NOT NULL,
    times  INTEGER NOT NULL,
    PRIMARY KEY (slot, what)
) WITHOUT ROWID;

-- What happened to each instance and job, in order.
CREATE TABLE IF NOT EXISTS step (
    instance_id  INTEGER NOT NULL,
    number       INTEGER NOT NULL,
    job_id       INTEGER,
    at           TEXT NOT NULL,
    what         TEXT NOT NULL,
    about        TEXT NOT NULL,
    PRIMARY KEY (instance_id, number)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS instance_of_study ON instance (study_instance_uid);
CREATE INDEX IF NOT EXISTS instance_of_caller ON instance (calling_ae_title, id);
CREATE INDEX IF NOT EXISTS job_on_route ON job (route);
CREATE INDEX IF NOT EXISTS job_to_destination ON job (destination);

CREATE TRIGGER instance_came AFTER INSERT ON instance BEGIN
    INSERT INTO event VALUES ('received', '', '', 1)
        ON CONFLICT DO UPDATE SET times = times + 1;
    INSERT INTO pace VALUES (substr(NEW.received, 1, 15), 'received', 1)
        ON CONFLICT DO UPDATE SET times = times + 1;
    INSERT INTO step VALUES
        (NEW.id, 1, NULL, NEW.received, 'received', NEW.calling_ae_title);
END;

CREATE TRIGGER instance_went AFTER DELETE ON instance BEGIN
    DELETE FROM step WHERE instance_id = OLD.id;
END;

CREATE TRIGGER job_began AFTER INSERT ON job BEGIN
    INSERT INTO event
        SELECT what, NEW.route, NEW.destination, 1
          FROM (SELECT 'owed' AS what UNION ALL SELECT NEW.state)
         WHERE what IN ('owed', 'held', 'quarantined')
        ON CONFLICT DO UPDATE SET times = times + 1;
    INSERT INTO step VALUES
        (NEW.instance_id,
         1 + (SELECT COALESCE(max(number), 0) FROM step
               WHERE instance_id = NEW.instance_id),
         NEW.id, strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now'),
         CASE NEW.state WHEN 'waiting' THEN 'owed' ELSE NEW.state END, NEW.reason);
END;

CREATE TRIGGER job_went AFTER DELETE ON job BEGIN
    DELETE FROM step WHERE instance_id = OLD.instance_id AND job_id = OLD.id;
END;

CREATE TRIGGER job_stepped AFTER UPDATE OF state, claim ON job
WHEN (NEW.state, NEW.claim) <> (OLD.state, OLD.claim)
BEGIN
    INSERT INTO step VALUES
        (NEW.instance_id,
         1 + (SELECT COALESCE(max(number), 0) FROM step
               WHERE instance_id = NEW.instance_id),
         NEW.id, strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now'),
         CASE WHEN NEW.state = 'working' THEN 'begun'
              WHEN NEW.state <> 'waiting' THEN NEW.state
              WHEN OLD.state = 'working' THEN 'put back'
              ELSE 'released' END,
         CASE NEW.state WHEN 'working' THEN '' ELSE NEW.reason END);
    INSERT INTO event
        SELECT what, NEW.route, NEW.destination, 1
          FROM (SELECT CASE WHEN NEW.state = 'waiting' AND OLD.state = 'working'
                                 AND NEW.reason <> '' THEN 'failed'
                            WHEN NEW.state = 'sent' AND NEW.ordered
                                 THEN 'sent as it came'
                            WHEN NEW.state = 'sent' AND NEW.purpose LIKE 'mark %'
                                 THEN 'sent marked'
                            WHEN NEW.state = 'sent' AND NEW.purpose LIKE 'strip %'
                                 THEN 'sent stripped'
                            WHEN NEW.state = 'sent' AND NEW.purpose LIKE 'refer %'
                                 THEN 'sent referring'
                            WHEN NEW.state = 'sent' THEN 'sent as it came'
                            WHEN NEW.state IN ('held', 'quarantined', 'dropped')
                                 THEN NEW.state END AS what)
         WHERE what IS NOT NULL
        ON CONFLICT DO UPDATE SET times = times + 1;
    INSERT INTO pace
        SELECT substr(NEW.settled, 1, 15), 'sent', 1 WHERE NEW.state = 'sent'
        ON CONFLICT DO UPDATE SET times = times + 1;
END;

CREATE TRIGGER job_ready AFTER UPDATE OF filtered ON job
WHEN NEW.filtered IS NOT NULL AND NEW.filtered IS NOT OLD.filtered
BEGIN
    INSERT INTO step VALUES
        (NEW.instance_id,
         1 + (SELECT COALESCE(max(number), 0) FROM step
               WHERE instance_id = NEW.instance_id),
         NEW.id, strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now'),
         'ready', NEW.purpose);
    INSERT INTO event
        VALUES (substr(NEW.purpose, 1, instr(NEW.purpose, ' ') - 1) || ' ready',
                NEW.route, NEW.destination, 1)
        ON CONFLICT DO UPDATE SET times = times + 1;
END;
