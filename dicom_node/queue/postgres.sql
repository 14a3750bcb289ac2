-- find_same
-- The last instance of the same bytes; nobody forgets its file meanwhile.
SELECT id, file FROM instance
 WHERE sop_instance_uid = :sop_instance_uid AND digest = :digest
 ORDER BY id DESC LIMIT 1
   FOR UPDATE;

-- hold_instance
SELECT id FROM instance WHERE id = :id FOR UPDATE;

-- alone_with
SELECT pg_advisory_xact_lock(hashtextextended(:what, 0));

-- add_job
INSERT INTO job (instance_id, study_instance_uid, route, destination, priority, lane,
                 state, attempts, not_before, reason, marks)
VALUES (:instance_id, :study_instance_uid, :route, :destination, :priority, :lane,
        :state, 0, :now, :reason, :marks);

-- wake
-- The same instance coming in again wakes a held job; and is marked from now on, if it
-- comes in to be marked.
UPDATE job
   SET attempts = CASE state WHEN 'held' THEN 0 ELSE attempts END,
       not_before = CASE state WHEN 'held' THEN :now ELSE not_before END,
       reason = CASE state WHEN 'held' THEN '' ELSE reason END,
       state = CASE state WHEN 'held' THEN 'waiting' ELSE state END,
       lane = CASE WHEN marks < :marks THEN 'filter' ELSE lane END,
       marks = GREATEST(marks, :marks)
 WHERE id = :id AND (state = 'held' OR (state = 'waiting' AND marks < :marks));

-- job
SELECT job.id, job.instance_id, instance.sop_instance_uid, instance.file, job.filtered,
       job.purpose, job.route, job.destination, job.study_instance_uid, job.priority,
       job.attempts, job.claim, job.crashes, job.faults, instance.calling_ae_title,
       job.marks = 1, glass.by, glass.why, glass.at, glass.receiver
  FROM job JOIN instance ON instance.id = job.instance_id
  LEFT JOIN glass ON glass.job_id = job.id
 WHERE job.id = :id;

-- bind
-- Whoever is just taking the job over is waited for: then its claim is another.
UPDATE glass SET receiver = :receiver
 WHERE job_id = (SELECT id FROM job
                  WHERE id = :id AND claim = :claim AND state = 'working'
                    FOR UPDATE);

-- assign
-- What another node works at stays in its lane. So does what any has taken in to be
-- marked, on a queue that several share: of two configurations nobody knows which is
-- the later one.
UPDATE job
   SET lane = CASE WHEN route IN (SELECT json_array_elements_text((:passed)::json))
                   THEN 'pass' ELSE 'filter' END,
       marks = 0
 WHERE state NOT IN ('sent', 'dropped')
   AND (state <> 'working' OR (:is_quiet = 1 AND node = :node))
   AND marks <= 1 - :is_shared
   AND (marks = 1
        OR lane <> CASE WHEN route IN (SELECT json_array_elements_text((:passed)::json))
                        THEN 'pass' ELSE 'filter' END);

-- claim
-- As of SQLite: of each route, destination and priority the first that is due is looked
-- up by itself. Whoever has a job in hand is passed over; so is what another node makes
-- ready for another destination of the same route, as all are sent the same object.
WITH RECURSIVE line (route, destination, priority) AS (
    (SELECT route, destination, priority FROM job
      WHERE lane = :lane AND state = 'waiting'
      ORDER BY route, destination, priority LIMIT 1)
    UNION ALL
    SELECT later.route, later.destination, later.priority
      FROM line CROSS JOIN LATERAL
           (SELECT route, destination, priority FROM job
             WHERE lane = :lane AND state = 'waiting'
               AND (route, destination, priority)
                   > (line.route, line.destination, line.priority)
             ORDER BY route, destination, priority LIMIT 1) AS later
), waiting AS (
    SELECT due.id, due.priority, due.not_before
      FROM line CROSS JOIN LATERAL
           (SELECT id, priority, not_before FROM job
             WHERE lane = :lane AND state = 'waiting'
               AND route = line.route AND destination = line.destination
               AND priority = line.priority AND not_before <= :now
               AND NOT EXISTS (SELECT 1 FROM job AS other
                                WHERE other.instance_id = job.instance_id
                                  AND other.route = job.route AND other.lane = 'filter'
                                  AND other.state = 'working' AND other.node <> :node
                                  AND other.filtered IS NULL AND job.filtered IS NULL
                                  AND other.lease_until > :now)
             ORDER BY not_before, id LIMIT 1
               FOR UPDATE SKIP LOCKED) AS due
     WHERE (line.priority >= :glass OR line.route
           NOT IN (SELECT json_array_elements_text((:routes)::json)))
       AND line.destination
           NOT IN (SELECT json_array_elements_text((:destinations)::json))
), late AS (
    SELECT id, priority, not_before FROM job
     WHERE lane = :lane AND state = 'working' AND lease_until <= :now
       AND (priority >= :glass OR route
           NOT IN (SELECT json_array_elements_text((:routes)::json)))
       AND destination NOT IN (SELECT json_array_elements_text((:destinations)::json))
     ORDER BY priority DESC, not_before, id LIMIT 1
       FOR UPDATE SKIP LOCKED
)
UPDATE job
   SET state = 'working', attempts = attempts + 1, claim = claim + 1,
       crashes = crashes + (state = 'working' AND filtered IS NULL
                            AND lane <> 'pass')::int,
       lease_until = :lease_until, node = :node
 WHERE id = (SELECT id FROM (SELECT * FROM waiting UNION ALL SELECT * FROM late) AS due
              ORDER BY priority DESC, not_before, id LIMIT 1)
RETURNING id;

-- claim_study
-- Those that nobody has tried yet: what killed its worker is not among them.
UPDATE job
   SET state = 'working', attempts = attempts + 1, claim = claim + 1,
       lease_until = :lease_until, node = :node
 WHERE id IN (SELECT id
                FROM job
               WHERE lane = :lane AND state = 'waiting'
                 AND study_instance_uid = :study
                 AND route = :route AND destination = :destination
                 AND not_before <= :now AND attempts = 0 AND crashes = 0
                 AND NOT EXISTS (SELECT 1 FROM job AS other
                                  WHERE other.instance_id = job.instance_id
                                    AND other.route = job.route
                                    AND other.lane = 'filter'
                                    AND other.state = 'working'
                                    AND other.node <> :node
                                    AND other.filtered IS NULL
                                    AND job.filtered IS NULL
                                    AND other.lease_until > :now)
               ORDER BY priority DESC, not_before, id
               LIMIT :count
                 FOR UPDATE SKIP LOCKED)
RETURNING id;

-- claim_others
-- Of whatever study. Where many were tried before, not all of them are looked through.
UPDATE job
   SET state = 'working', attempts = attempts + 1, claim = claim + 1,
       lease_until = :lease_until, node = :node
 WHERE id IN (SELECT id
                FROM (SELECT id, attempts, crashes
                        FROM job
                       WHERE lane = :lane AND state = 'waiting' AND route = :route
                         AND destination = :destination AND priority = :priority
                         AND not_before <= :now
                         AND NOT EXISTS (SELECT 1 FROM job AS other
                                          WHERE other.instance_id = job.instance_id
                                            AND other.route = job.route
                                            AND other.lane = 'filter'
                                            AND other.state = 'working'
                                            AND other.node <> :node
                                            AND other.filtered IS NULL
                                            AND job.filtered IS NULL
                                            AND other.lease_until > :now)
                       ORDER BY not_before, id
                       LIMIT 4 * :count
                         FOR UPDATE SKIP LOCKED) AS tried
               WHERE attempts = 0 AND crashes = 0
               LIMIT :count)
RETURNING id;

-- made
SELECT filtered FROM job
 WHERE instance_id = :instance_id AND route = :route AND filtered IS NOT NULL
   AND split_part(purpose, ' ', 1) = :kind
 LIMIT 1;

-- settle
UPDATE job
   SET state = :state, not_before = COALESCE(:not_before, not_before),
       faults = faults + :faults, attempts = attempts - :free, settled = :settled,
       lease_until = NULL, reason = :reason, receiver = :receiver,
       ordered = (:state = 'sent'
                  AND EXISTS (SELECT 1 FROM glass WHERE job_id = job.id))::int
 WHERE id = :id AND claim = :claim AND state = 'working';

-- release_claims
-- Of this node only.
UPDATE job
   SET state = 'waiting',
       crashes = crashes
               + (id IN (SELECT json_array_elements_text((:suspects)::json)::bigint))::int,
       lease_until = NULL, not_before = :not_before
 WHERE state = 'working' AND lane = :lane AND node = :node;

-- due_note
SELECT kind, peer, route, action, study, patient
  FROM note WHERE batch = ''
 GROUP BY kind, peer, route, action, study, patient
HAVING max(at) <= :quiet_before OR min(at) <= :begun_before
 ORDER BY min(at) LIMIT 1;

-- take_notes
UPDATE note SET batch = :batch, node = :node
 WHERE batch = '' AND kind = :kind AND peer = :peer AND route = :route
   AND action = :action AND study = :study AND patient = :patient;

-- taken_notes
SELECT batch, kind, peer, route, action, study, patient, sop_class, count(*)
  FROM note
 WHERE batch = (SELECT min(batch) FROM note WHERE batch > '' AND node = :node)
 GROUP BY batch, kind, peer, route, action, study, patient, sop_class
 ORDER BY sop_class;

-- study
SELECT route, study_instance_uid, stage, arrived, expected, due FROM study
 WHERE route = :route AND study_instance_uid = :study
   FOR UPDATE;

-- studies_due
SELECT route, study_instance_uid, stage, arrived, expected, due FROM study
 WHERE stage <> 'complete' AND due <= :now
 ORDER BY due LIMIT 16
   FOR UPDATE SKIP LOCKED;

-- purgeable
SELECT id FROM instance
 WHERE file IS NULL AND received <= :before
   AND id < (SELECT max(id) FROM instance)
   AND NOT EXISTS (SELECT 1 FROM job
                    WHERE job.instance_id = instance.id
                      AND (job.state NOT IN ('sent', 'dropped')
                           OR job.filtered IS NOT NULL
                           OR job.settled > :before
                           OR job.id = (SELECT max(id) FROM job)))
 ORDER BY received
 LIMIT :count
   FOR UPDATE SKIP LOCKED;

-- purge_jobs
DELETE FROM job
 WHERE instance_id IN (SELECT json_array_elements_text((:ids)::json)::bigint);

-- purge_instances
DELETE FROM instance
 WHERE id IN (SELECT json_array_elements_text((:ids)::json)::bigint);

-- has_parts
SELECT 1 FROM total_part OFFSET 2000 LIMIT 1;

-- fold_totals
WITH part AS (DELETE FROM total_part RETURNING route, destination, what, count)
INSERT INTO total_part SELECT route, destination, what, sum(count) FROM part
 GROUP BY route, destination, what;

-- fold_events
WITH part AS (DELETE FROM event_part RETURNING what, route, destination, times)
INSERT INTO event_part SELECT what, route, destination, sum(times) FROM part
 GROUP BY what, route, destination;

-- fold_pace
WITH part AS (DELETE FROM pace_part RETURNING slot, what, times)
INSERT INTO pace_part SELECT slot, what, sum(times) FROM part GROUP BY slot, what;

-- fold_minutes
WITH part AS (DELETE FROM minute_part RETURNING minute, route, destination, what, count)
INSERT INTO minute_part SELECT minute, route, destination, what, sum(count) FROM part
 WHERE minute >= :since GROUP BY minute, route, destination, what;

-- settle_sent
UPDATE job
   SET state = 'uncommitted', settled = :now, lease_until = NULL, reason = '',
       receiver = :destination,
       ordered = (EXISTS (SELECT 1 FROM glass WHERE job_id = job.id))::int
 WHERE id = :id AND claim = :claim AND state = 'working';

-- due_to
SELECT wanted FROM json_array_elements_text((:destinations)::json) AS wanted
 WHERE EXISTS (SELECT 1 FROM commitment
                WHERE is_open = 1 AND destination = wanted AND due <= :now);

-- due
SELECT study FROM commitment
 WHERE is_open = 1 AND destination = :destination AND due <= :now
 ORDER BY due LIMIT 1;

-- to_ask
SELECT job_id, sop_class_uid, sop_instance_uid, asks + 1 FROM commitment
 WHERE is_open = 1 AND destination = :destination AND study = :study
   AND (due <= :now OR asks = 0)
 ORDER BY job_id LIMIT :most;

-- to_tell
-- Of those that another node is just telling, none: the lock ends with its session.
SELECT id, peer, transaction_uid, instances, attempts, reason
  FROM (SELECT * FROM commitment_request
         WHERE peer = :peer AND not_before <= :now
         ORDER BY not_before, id OFFSET 0) AS due
 WHERE pg_try_advisory_lock(hashtextextended('miadmark told ' || due.id, 0))
 LIMIT 1;

-- tell_over
SELECT pg_advisory_unlock(hashtextextended('miadmark told ' || :id, 0));

-- put_off
UPDATE commitment SET due = :due, reason = :reason
 WHERE is_open = 1
   AND job_id IN (SELECT job_id FROM commitment_asked
                   WHERE transaction_uid = :transaction_uid);

-- asked_for
SELECT c.job_id, job.instance_id, c.refusals, c.destination
  FROM commitment_asked AS a
  JOIN commitment AS c ON c.job_id = a.job_id
  JOIN job ON job.id = c.job_id
 WHERE a.transaction_uid = :transaction_uid AND c.is_open = 1
   AND job.state = 'uncommitted'
   AND c.sop_class_uid = :sop_class_uid AND c.sop_instance_uid = :sop_instance_uid
   FOR UPDATE OF job;

-- not_asked
SELECT c.job_id, job.instance_id
  FROM commitment AS c JOIN job ON job.id = c.job_id
 WHERE job.state = 'uncommitted'
   AND c.destination NOT IN (SELECT json_array_elements_text((:asked)::json));

-- awaited
SELECT destination, count(*), min(sent), max(asks),
       (array_agg(reason ORDER BY asks DESC))[1]
  FROM commitment
 WHERE is_open = 1 GROUP BY destination ORDER BY destination;
