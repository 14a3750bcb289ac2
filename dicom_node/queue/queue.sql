-- find_same
-- An instance of the same bytes that is still owed to somebody.
SELECT id FROM instance
 WHERE sop_instance_uid = :sop_instance_uid AND digest = :digest AND file IS NOT NULL;

-- add_instance
INSERT INTO instance (sop_instance_uid, digest, file, received)
VALUES (:sop_instance_uid, :digest, :file, :now)
RETURNING id;

-- add_job
INSERT INTO job (instance_id, route, state, attempts, not_before, reason)
VALUES (:instance_id, :route, 'waiting', 0, :now, '');

-- open_job
-- What is still owed of an instance to a route.
SELECT id, state FROM job
 WHERE instance_id = :instance_id AND route = :route AND state NOT IN ('sent', 'dropped');

-- release
-- A person, or the same instance coming in again, wakes a held job.
UPDATE job SET state = 'waiting', attempts = 0, not_before = :now, reason = ''
 WHERE id = :id AND state = 'held';

-- claim
-- Take the job that has been due longest. One statement, so that two workers never
-- hold the same job; a lease that ran out counts as due, so that a killed worker
-- loses nothing.
UPDATE job
   SET state = 'working', attempts = attempts + 1, lease_until = :lease_until
 WHERE id = (SELECT id
               FROM job
              WHERE (state = 'waiting' AND not_before <= :now)
                 OR (state = 'working' AND lease_until <= :now)
              ORDER BY not_before, id
              LIMIT 1)
RETURNING id, instance_id, route, attempts, filtered, purpose;

-- instance
SELECT sop_instance_uid, file FROM instance WHERE id = :id;

-- keep_filtered
UPDATE job SET filtered = :file, purpose = :purpose
 WHERE id = :id AND attempts = :attempts;

-- settle
-- The attempts are the token of a claim: who lost it to another changes nothing.
UPDATE job
   SET state = :state, not_before = COALESCE(:not_before, not_before),
       lease_until = NULL, reason = :reason
 WHERE id = :id AND attempts = :attempts AND state = 'working';

-- release_claims
-- Not at once: what kills its worker must not stand in everybody's way.
UPDATE job SET state = 'waiting', lease_until = NULL, not_before = :not_before
 WHERE state = 'working';

-- done_files
-- Files of jobs that are settled, and of instances that nobody is owed.
SELECT filtered FROM job WHERE state IN ('sent', 'dropped') AND filtered IS NOT NULL
UNION
SELECT file FROM instance
 WHERE file IS NOT NULL
   AND NOT EXISTS (SELECT 1 FROM job
                    WHERE job.instance_id = instance.id AND job.state NOT IN ('sent', 'dropped'));

-- forget_filtered
UPDATE job SET filtered = NULL WHERE state IN ('sent', 'dropped');

-- forget_instances
UPDATE instance SET file = NULL
 WHERE NOT EXISTS (SELECT 1 FROM job
                    WHERE job.instance_id = instance.id AND job.state NOT IN ('sent', 'dropped'));

-- files
SELECT file FROM instance WHERE file IS NOT NULL
UNION
SELECT filtered FROM job WHERE filtered IS NOT NULL;

-- counts
SELECT state, count(*) FROM job GROUP BY state;

-- held
SELECT job.id, instance.sop_instance_uid, job.route, job.reason
  FROM job JOIN instance ON instance.id = job.instance_id
 WHERE job.state = 'held'
 ORDER BY job.id;
