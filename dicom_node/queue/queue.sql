-- find_same
-- The last instance of the same bytes.
SELECT id, file FROM instance
 WHERE sop_instance_uid = :sop_instance_uid AND digest = :digest
 ORDER BY id DESC LIMIT 1;

-- find_clashing
-- Another instance under the same UID, on its way to a route or sent on it lately; or for
-- a person to decide about, unless it is that since it clashed itself.
SELECT job.id FROM job JOIN instance ON instance.id = job.instance_id
 WHERE instance.sop_instance_uid = :sop_instance_uid AND instance.digest <> :digest
   AND job.route = :route
   AND (job.state IN ('waiting', 'working', 'held', 'uncommitted')
        OR (job.state = 'quarantined' AND job.reason <> :clashes)
        OR (job.state = 'sent' AND job.settled > :sent_after))
 LIMIT 1;

-- add_instance
INSERT INTO instance (sop_instance_uid, study_instance_uid, digest, file, received,
                      sop_class_uid, calling_ae_title, patient)
VALUES (:sop_instance_uid, :study_instance_uid, :digest, :file, :now,
        :sop_class_uid, :calling_ae_title, :patient)
RETURNING id;

-- open
-- Whether an instance is still owed to anybody.
SELECT id FROM job
 WHERE instance_id = :id AND state NOT IN ('sent', 'dropped') LIMIT 1;

-- refile
-- The same bytes came in again after their file was deleted.
UPDATE instance SET file = :file WHERE id = :id;

-- add_job
INSERT INTO job (instance_id, study_instance_uid, route, destination, priority, lane,
                 state, attempts, not_before, reason)
VALUES (:instance_id, :study_instance_uid, :route, :destination, :priority, :lane,
        :state, 0, :now, :reason);

-- index_earlier
-- Not used any more: what waits for somebody who rests stood in the way in it.
DROP INDEX IF EXISTS job_by_lane;

-- index_due
-- Apart from the schema, since queues of earlier versions get these columns after it.
CREATE INDEX IF NOT EXISTS job_due
    ON job (lane, route, destination, priority, not_before, id)
 WHERE state = 'waiting';

-- index_studies
CREATE INDEX IF NOT EXISTS job_of_study
    ON job (study_instance_uid, route, destination, priority DESC, not_before, id)
 WHERE state = 'waiting';

-- index_working
CREATE INDEX IF NOT EXISTS job_working ON job (lane, lease_until)
 WHERE state = 'working';

-- assign
UPDATE job
   SET lane = CASE WHEN route IN (SELECT value FROM json_each(:passed))
                   THEN 'pass' ELSE 'filter' END
 WHERE state NOT IN ('sent', 'dropped') AND (:is_quiet OR state <> 'working');

-- assign_destination
-- In a queue of an earlier version a route had one.
UPDATE job SET destination = :destination WHERE destination = '' AND route = :route;

-- last_job
-- Where an instance stands on its way to a destination.
SELECT id, state, settled FROM job
 WHERE instance_id = :instance_id AND route = :route AND destination = :destination
 ORDER BY id DESC LIMIT 1;

-- clashed
-- Whether an instance is quarantined since it came in under the UID of another.
SELECT id FROM job
 WHERE instance_id = :id AND state = 'quarantined' AND reason = :reason;

-- wake
-- The same instance coming in again wakes a held job.
UPDATE job
   SET state = 'waiting', attempts = 0, not_before = :now, reason = ''
 WHERE id = :id AND state = 'held';

-- release
-- A person wakes a held job, or a quarantined one.
UPDATE job
   SET state = 'waiting', attempts = 0, crashes = 0, faults = 0, not_before = :now,
       reason = ''
 WHERE id = :id AND state IN ('held', 'quarantined');

-- discard
UPDATE job SET state = 'dropped', reason = :reason
 WHERE id = :id AND state IN ('held', 'quarantined');

-- claim
-- Take the most urgent job, and of those the one that has been due longest. One
-- statement, so that two workers never hold the same job; a lease that ran out counts as
-- due, so that a killed worker loses nothing. Of those that wait, the first of each route,
-- destination and priority is looked up by itself: whoever rests is passed over at once,
-- however many jobs he has, and so are those that are not due yet. What is to leave as it
-- came has a priority of its own, and waits for no route.
UPDATE job
   SET state = 'working', attempts = attempts + 1, claim = claim + 1,
       crashes = crashes + (state = 'working' AND filtered IS NULL AND lane <> 'pass'),
       lease_until = :lease_until
 WHERE id = (SELECT id
               FROM (WITH RECURSIVE line(id) AS (
                         SELECT (SELECT id FROM job
                                  WHERE lane = :lane AND state = 'waiting'
                                  ORDER BY route, destination, priority
                                  LIMIT 1)
                         UNION ALL
                         SELECT COALESCE(
                                (SELECT id FROM job
                                  WHERE lane = :lane AND state = 'waiting'
                                    AND route = last.route
                                    AND destination = last.destination
                                    AND priority > last.priority
                                  ORDER BY priority
                                  LIMIT 1),
                                (SELECT id FROM job
                                  WHERE lane = :lane AND state = 'waiting'
                                    AND route = last.route
                                    AND destination > last.destination
                                  ORDER BY destination, priority
                                  LIMIT 1),
                                (SELECT id FROM job
                                  WHERE lane = :lane AND state = 'waiting'
                                    AND route > last.route
                                  ORDER BY route, destination, priority
                                  LIMIT 1))
                           FROM line JOIN job AS last ON last.id = line.id)
                     SELECT due.id, due.priority, due.not_before
                       FROM line
                       JOIN job AS head ON head.id = line.id
                       JOIN job AS due
                         ON due.id = (SELECT id FROM job
                                       WHERE lane = :lane AND state = 'waiting'
                                         AND route = head.route
                                         AND destination = head.destination
                                         AND priority = head.priority
                                         AND not_before <= :now
                                       ORDER BY not_before, id
                                       LIMIT 1)
                      WHERE (head.priority >= :glass OR head.route
                            NOT IN (SELECT value FROM json_each(:routes)))
                        AND head.destination
                            NOT IN (SELECT value FROM json_each(:destinations))
                     UNION ALL
                     SELECT id, priority, not_before FROM job
                      WHERE lane = :lane AND state = 'working' AND lease_until <= :now
                        AND (priority >= :glass OR route
                            NOT IN (SELECT value FROM json_each(:routes)))
                        AND destination
                            NOT IN (SELECT value FROM json_each(:destinations)))
              ORDER BY priority DESC, not_before, id
              LIMIT 1)
RETURNING id;

-- claim_study
-- Those that nobody has tried yet: what killed its worker is not among them.
UPDATE job
   SET state = 'working', attempts = attempts + 1, claim = claim + 1,
       lease_until = :lease_until
 WHERE id IN (SELECT id
                FROM job
               WHERE state = 'waiting' AND study_instance_uid = :study
                 AND route = :route AND destination = :destination
                 AND not_before <= :now AND attempts = 0 AND crashes = 0
               ORDER BY priority DESC, not_before, id
               LIMIT :count)
RETURNING id;

-- claim_others
-- Of whatever study. Where many were tried before, not all of them are looked through.
UPDATE job
   SET state = 'working', attempts = attempts + 1, claim = claim + 1,
       lease_until = :lease_until
 WHERE id IN (SELECT id
                FROM (SELECT id, attempts, crashes
                        FROM job
                       WHERE lane = :lane AND state = 'waiting' AND route = :route
                         AND destination = :destination AND priority = :priority
                         AND not_before <= :now
                       ORDER BY not_before, id
                       LIMIT 4 * :count)
               WHERE attempts = 0 AND crashes = 0
               LIMIT :count)
RETURNING id;

-- renew
UPDATE job SET lease_until = :lease_until
 WHERE id = :id AND claim = :claim AND state = 'working';

-- upcoming
-- No more are looked at than are wanted: what is behind them has time.
SELECT id
  FROM (SELECT id, instance_id, route, filtered, attempts, crashes, not_before
          FROM job
         WHERE lane = :lane AND state = 'waiting' AND route = :route
           AND destination = :destination AND priority = :priority
           AND not_before <= :now
         ORDER BY not_before, id
         LIMIT :count) AS next
 WHERE attempts = 0 AND crashes = 0 AND filtered IS NULL
   AND NOT EXISTS (SELECT 1 FROM job AS other
                    WHERE other.instance_id = next.instance_id
                      AND other.route = next.route
                      AND other.filtered IS NOT NULL)
 ORDER BY not_before, id;

-- job
SELECT job.id, job.instance_id, instance.sop_instance_uid, instance.file, job.filtered,
       job.purpose, job.route, job.destination, job.study_instance_uid, job.priority,
       job.attempts, job.claim, job.crashes, job.faults, instance.calling_ae_title,
       0, glass.by, glass.why, glass.at, glass.receiver
  FROM job JOIN instance ON instance.id = job.instance_id
  LEFT JOIN glass ON glass.job_id = job.id
 WHERE job.id = :id;

-- made
-- What was made ready to be sent for another destination of the same route.
SELECT filtered FROM job
 WHERE instance_id = :instance_id AND route = :route AND filtered IS NOT NULL
   AND substr(purpose, 1, instr(purpose, ' ') - 1) = :kind
 LIMIT 1;

-- keep_filtered
UPDATE job SET filtered = :file, purpose = :purpose
 WHERE id = :id AND claim = :claim AND state = 'working';

-- settle
-- The number of claims is the token of a claim: who lost it to another changes nothing.
UPDATE job
   SET state = :state, not_before = COALESCE(:not_before, not_before),
       faults = faults + :faults, attempts = attempts - :free, settled = :settled, lease_until = NULL,
       reason = :reason, receiver = :receiver,
       ordered = :state = 'sent' AND EXISTS (SELECT 1 FROM glass WHERE job_id = job.id)
 WHERE id = :id AND claim = :claim AND state = 'working';

-- release_claims
-- Not at once: what kills its worker must not stand in everybody's way.
UPDATE job
   SET state = 'waiting',
       crashes = crashes + (id IN (SELECT value FROM json_each(:suspects))),
       lease_until = NULL, not_before = :not_before
 WHERE state = 'working' AND lane = :lane;

-- hold_instance
-- Whoever adds the same instance meanwhile waits.
SELECT id FROM instance WHERE id = :id;

-- with_files
-- Instances that have a file that nobody is owed.
SELECT id FROM instance
 WHERE file IS NOT NULL
   AND NOT EXISTS (SELECT 1 FROM job
                    WHERE job.instance_id = instance.id
                      AND job.state NOT IN ('sent', 'dropped'))
UNION
SELECT instance_id FROM job
 WHERE filtered IS NOT NULL AND state IN ('sent', 'dropped')
 ORDER BY 1;

-- done_files
-- Of an instance: files of jobs that are settled, unless another job sends them too, or
-- may, as all destinations of a route that marks do; and its own if nobody is owed it.
SELECT filtered FROM job
 WHERE instance_id = :id AND state IN ('sent', 'dropped') AND filtered IS NOT NULL
   AND NOT EXISTS (SELECT 1 FROM job AS other
                    WHERE other.instance_id = :id
                      AND other.state NOT IN ('sent', 'dropped')
                      AND (other.filtered = job.filtered
                           OR (other.filtered IS NULL AND other.route = job.route
                               AND job.purpose LIKE 'mark %')))
UNION
SELECT file FROM instance
 WHERE id = :id AND file IS NOT NULL
   AND NOT EXISTS (SELECT 1 FROM job
                    WHERE job.instance_id = instance.id
                      AND job.state NOT IN ('sent', 'dropped'));

-- forget_filtered
UPDATE job SET filtered = NULL
 WHERE instance_id = :id AND state IN ('sent', 'dropped') AND filtered IS NOT NULL
   AND NOT EXISTS (SELECT 1 FROM job AS other
                    WHERE other.instance_id = :id AND other.filtered IS NULL
                      AND other.state NOT IN ('sent', 'dropped')
                      AND other.route = job.route AND job.purpose LIKE 'mark %');

-- forget_instance
UPDATE instance SET file = NULL
 WHERE id = :id
   AND NOT EXISTS (SELECT 1 FROM job
                    WHERE job.instance_id = instance.id
                      AND job.state NOT IN ('sent', 'dropped'));

-- files
SELECT file FROM instance WHERE file IS NOT NULL
UNION
SELECT filtered FROM job WHERE filtered IS NOT NULL;

-- lasting_files
-- Those of them that are on a disk: an original that was restored may be in the memory of
-- whoever is about to send it, and is restored again where it is not.
SELECT file FROM instance WHERE file IS NOT NULL
UNION
SELECT filtered FROM job
 WHERE filtered IS NOT NULL AND COALESCE(purpose, '') NOT LIKE 'strip %';

-- counts
SELECT what, sum(count) FROM total WHERE what <> 'received' GROUP BY what;

-- owed
SELECT route, sum(count) FROM total
 WHERE what IN ('waiting', 'working', 'uncommitted', 'held', 'quarantined')
 GROUP BY route HAVING sum(count) > 0;

-- held
SELECT job.id, instance.sop_instance_uid, job.route, job.destination, job.reason
  FROM job JOIN instance ON instance.id = job.instance_id
 WHERE job.state = :state
 ORDER BY job.id;

-- trigger_received
-- What comes in is counted for the audit in the same transaction.
CREATE TRIGGER note_received AFTER INSERT ON instance
BEGIN
    INSERT INTO note VALUES ('', 'received', NEW.calling_ae_title, '', '',
                             NEW.study_instance_uid, NEW.patient, NEW.sop_class_uid,
                             1, NEW.received, NEW.received)
        ON CONFLICT DO UPDATE SET count = count + 1, last = excluded.last;
END;

-- trigger_sent
-- So is what is settled as sent: by whom it was taken, and as what it left.
CREATE TRIGGER note_sent AFTER UPDATE OF state ON job
WHEN NEW.state = 'sent' AND OLD.state <> 'sent'
BEGIN
    INSERT INTO note
    SELECT '', 'sent',
           CASE NEW.receiver WHEN '' THEN NEW.destination ELSE NEW.receiver END,
           NEW.route,
           CASE WHEN NEW.ordered THEN 'break-glass'
                ELSE substr(coalesce(NEW.purpose, 'pass') || ' ', 1,
                            instr(coalesce(NEW.purpose, 'pass') || ' ', ' ') - 1) END,
           instance.study_instance_uid, instance.patient, instance.sop_class_uid,
           1, NEW.settled, NEW.settled
      FROM instance WHERE instance.id = NEW.instance_id
        ON CONFLICT DO UPDATE SET count = count + 1, last = excluded.last;
END;

-- due_note
-- A study of which nothing more has come for a while, or that has been coming for long.
SELECT kind, peer, route, action, study, patient
  FROM note WHERE batch = ''
 GROUP BY kind, peer, route, action, study, patient
HAVING max(last) <= :quiet_before OR min(first) <= :begun_before
 ORDER BY min(first) LIMIT 1;

-- take_notes
UPDATE note SET batch = :batch
 WHERE batch = '' AND kind = :kind AND peer = :peer AND route = :route
   AND action = :action AND study = :study AND patient = :patient;

-- taken_notes
SELECT batch, kind, peer, route, action, study, patient, sop_class, count
  FROM note WHERE batch = (SELECT min(batch) FROM note WHERE batch > '')
 ORDER BY sop_class;

-- forget_notes
DELETE FROM note WHERE batch = :batch;

-- waiting_since
-- When the instance came in that has been owed longest, of those that nobody has held.
SELECT min(instance.received) FROM job JOIN instance ON instance.id = job.instance_id
 WHERE job.state IN ('waiting', 'working');
