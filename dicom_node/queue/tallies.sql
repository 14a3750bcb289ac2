-- tally_totals
-- How many jobs of a route and destination stand where, and how many there ever were
-- ('received'). Kept by triggers, in the transaction that changes a job: so they are
-- right whatever changes it, and reading them takes the same time however many there
-- are. A settled job that is deleted stays counted.
CREATE TABLE IF NOT EXISTS total (
    route        TEXT NOT NULL,
    destination  TEXT NOT NULL,
    what         TEXT NOT NULL,
    count        INTEGER NOT NULL,
    PRIMARY KEY (route, destination, what)
) WITHOUT ROWID;

-- tally_minutes
-- What came and what was sent, minute by minute, for the last two hours.
CREATE TABLE IF NOT EXISTS minute (
    minute       TEXT NOT NULL,
    route        TEXT NOT NULL,
    destination  TEXT NOT NULL,
    what         TEXT NOT NULL,
    count        INTEGER NOT NULL,
    PRIMARY KEY (minute, route, destination, what)
) WITHOUT ROWID;

-- tally_owed
CREATE INDEX IF NOT EXISTS job_owed ON job (route, destination, id)
 WHERE state IN ('waiting', 'working');

-- tally_counted
-- Queues of earlier versions have jobs and no totals.
INSERT INTO total (route, destination, what, count)
SELECT route, destination, state, count(*) FROM job GROUP BY route, destination, state
UNION ALL
SELECT route, destination, 'received', count(*) FROM job GROUP BY route, destination;

-- tally_added
CREATE TRIGGER IF NOT EXISTS job_added AFTER INSERT ON job
BEGIN
    INSERT INTO total (route, destination, what, count)
    VALUES (NEW.route, NEW.destination, NEW.state, 1),
           (NEW.route, NEW.destination, 'received', 1)
        ON CONFLICT DO UPDATE SET count = count + 1;
    INSERT INTO minute (minute, route, destination, what, count)
    SELECT substr(received, 1, 16), NEW.route, NEW.destination, 'received', 1
      FROM instance WHERE id = NEW.instance_id
        ON CONFLICT DO UPDATE SET count = count + 1;
END;

-- tally_moved
-- To another state, or to another destination: then it was received for that one.
CREATE TRIGGER IF NOT EXISTS job_moved AFTER UPDATE OF state, route, destination ON job
  WHEN (OLD.state, OLD.route, OLD.destination)
       IS NOT (NEW.state, NEW.route, NEW.destination)
BEGIN
    UPDATE total SET count = count - 1
     WHERE route = OLD.route AND destination = OLD.destination
       AND what IN (OLD.state, 'received');
    INSERT INTO total (route, destination, what, count)
    VALUES (NEW.route, NEW.destination, NEW.state, 1),
           (NEW.route, NEW.destination, 'received', 1)
        ON CONFLICT DO UPDATE SET count = count + 1;
    INSERT INTO minute (minute, route, destination, what, count)
    SELECT substr(NEW.settled, 1, 16), NEW.route, NEW.destination, 'sent', 1
     WHERE NEW.state = 'sent' AND OLD.state <> 'sent'
        ON CONFLICT DO UPDATE SET count = count + 1;
END;

-- tally_removed
-- Only what is settled is deleted; anything else is not there any more, nor ever was.
CREATE TRIGGER IF NOT EXISTS job_removed AFTER DELETE ON job
  WHEN OLD.state NOT IN ('sent', 'dropped')
BEGIN
    UPDATE total SET count = count - 1
     WHERE route = OLD.route AND destination = OLD.destination
       AND what IN (OLD.state, 'received');
END;

-- tally_forgotten
CREATE TRIGGER IF NOT EXISTS minute_added AFTER INSERT ON minute
BEGIN
    DELETE FROM minute
     WHERE minute < strftime('%Y-%m-%dT%H:%M', NEW.minute, '-2 hours');
END;

-- is_tallied
SELECT name FROM sqlite_master WHERE type = 'trigger' AND name = 'job_added';

-- totals
SELECT route, destination, what, count FROM total ORDER BY route, destination;

-- lately
SELECT what, sum(count) FROM minute
 WHERE minute >= :since AND minute < :until
   AND route = :route AND destination = :destination
 GROUP BY what;

-- oldest
SELECT received FROM instance
 WHERE id = (SELECT instance_id FROM job
              WHERE route = :route AND destination = :destination
                AND state IN ('waiting', 'working')
              ORDER BY id LIMIT 1);
