-- find_same
-- The last instance of the same bytes.
SELECT id, file FROM instance
 WHERE sop_instance_uid = :sop_instance_uid AND digest = :digest
 ORDER BY id DESC LIMIT 1;

-- find_clashing
-- Another instance under the same UID, on its way to a route or sent on it lately.
SELECT job.id FROM job JOIN instance ON instance.id = job.instance_id
 WHERE instance.sop_instance_uid = :sop_instance_uid AND instance.digest <> :digest
   AND job.route = :route
   AND (job.state IN ('waiting', 'working', 'held')
        OR (job.state = 'sent' AND job.settled > :sent_after))
 LIMIT 1;

-- add_instance
INSERT INTO instance (sop_instance_uid, digest, file, received)
VALUES (:sop_instance_uid, :digest, :file, :now)
RETURNING id;

-- open
-- Whether an instance is still owed to anybody.
SELECT id FROM job
 WHERE instance_id = :id AND state NOT IN ('sent', 'dropped') LIMIT 1;

-- refile
-- The same bytes came in again after their file was deleted.
UPDATE instance SET file = :file WHERE id = :id;

-- add_job
INSERT INTO job (instance_id, route, lane, state, attempts, not_before, reason)
VALUES (:instance_id, :route, :lane, :state, 0, :now, :reason);

-- index_lanes
-- Apart from the schema, since queues of earlier versions get their lanes after it.
CREATE INDEX IF NOT EXISTS job_by_lane ON job (lane, state, not_before, id);

-- assign
UPDATE job
   SET lane = CASE WHEN route IN (SELECT value FROM json_each(:passed))
                   THEN 'pass' ELSE 'filter' END
 WHERE state NOT IN ('sent', 'dropped') AND (:is_quiet OR state <> 'working');

-- last_job
-- Where an instance stands on a route.
SELECT id, state, settled FROM job
 WHERE instance_id = :instance_id AND route = :route
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
-- Take the job that has been due longest. One statement, so that two workers never
-- hold the same job; a lease that ran out counts as due, so that a killed worker
-- loses nothing. Each kind is looked up by itself: together, all that wait are sorted.
UPDATE job
   SET state = 'working', attempts = attempts + 1, claim = claim + 1,
       crashes = crashes + (state = 'working' AND (filtered IS NULL OR doubted)),
       doubted = 0, lease_until = :lease_until
 WHERE id = (SELECT id
               FROM (SELECT *
                       FROM (SELECT id, not_before FROM job
                              WHERE lane = :lane AND state = 'waiting'
                                AND not_before <= :now
                              ORDER BY not_before, id
                              LIMIT 1)
                     UNION ALL
                     SELECT *
                       FROM (SELECT id, not_before FROM job
                              WHERE lane = :lane AND state = 'working'
                                AND lease_until <= :now
                              ORDER BY not_before, id
                              LIMIT 1))
              ORDER BY not_before, id
              LIMIT 1)
RETURNING id, instance_id, route, attempts, claim, crashes, faults, filtered, purpose;

-- claim_more
-- Those that nobody has claimed yet: what killed its worker is not among them.
UPDATE job
   SET state = 'working', attempts = attempts + 1, claim = claim + 1,
       lease_until = :lease_until
 WHERE id IN (SELECT id
                FROM job
               WHERE state = 'waiting' AND not_before <= :now
                 AND claim = 0 AND route = :route
               ORDER BY not_before, id
               LIMIT :count)
RETURNING id, instance_id, route, attempts, claim, crashes, faults, filtered, purpose;

-- instance
SELECT sop_instance_uid, file FROM instance WHERE id = :id;

-- keep_filtered
UPDATE job SET filtered = :file, purpose = :purpose
 WHERE id = :id AND claim = :claim AND state = 'working';

-- doubt
-- While it is set, a death counts though the job is ready to be sent.
UPDATE job SET doubted = :is_so
 WHERE id = :id AND claim = :claim AND state = 'working';

-- settle
-- The number of claims is the token of a claim: who lost it to another changes nothing.
UPDATE job
   SET state = :state, not_before = COALESCE(:not_before, not_before),
       faults = faults + :faults, settled = :settled, lease_until = NULL,
       reason = :reason
 WHERE id = :id AND claim = :claim AND state = 'working';

-- release_claims
-- Not at once: what kills its worker must not stand in everybody's way.
UPDATE job
   SET state = 'waiting',
       crashes = crashes + (:died AND (filtered IS NULL OR doubted)), doubted = 0,
       lease_until = NULL, not_before = :not_before
 WHERE state = 'working' AND lane = :lane;

-- with_files
-- Instances that may have a file that nobody is owed.
SELECT id FROM instance WHERE file IS NOT NULL
UNION
SELECT instance_id FROM job WHERE filtered IS NOT NULL;

-- done_files
-- Of an instance: files of jobs that are settled, and its own if nobody is owed it.
SELECT filtered FROM job
 WHERE instance_id = :id AND state IN ('sent', 'dropped') AND filtered IS NOT NULL
UNION
SELECT file FROM instance
 WHERE id = :id AND file IS NOT NULL
   AND NOT EXISTS (SELECT 1 FROM job
                    WHERE job.instance_id = instance.id
                      AND job.state NOT IN ('sent', 'dropped'));

-- forget_filtered
UPDATE job SET filtered = NULL
 WHERE instance_id = :id AND state IN ('sent', 'dropped') AND filtered IS NOT NULL;

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

-- counts
SELECT state, count(*) FROM job GROUP BY state;

-- owed
SELECT route, count(*) FROM job
 WHERE state IN ('waiting', 'working', 'held', 'quarantined') GROUP BY route;

-- held
SELECT job.id, instance.sop_instance_uid, job.route, job.reason
  FROM job JOIN instance ON instance.id = job.instance_id
 WHERE job.state = :state
 ORDER BY job.id;
