-- standing
SELECT job.id, instance.sop_instance_uid, job.route, job.destination, job.state,
       job.priority
  FROM job JOIN instance ON instance.id = job.instance_id
 WHERE job.id = :id;

-- jobs_of_study
-- Each state by itself, or all jobs would be gone through.
SELECT id FROM job WHERE study_instance_uid = :study AND state = 'waiting'
UNION
SELECT id FROM job
 WHERE study_instance_uid = :study AND state IN ('working', 'held', 'quarantined')
 ORDER BY id;

-- prioritise
-- What leaves as it came has a priority of its own.
UPDATE job SET priority = :priority
 WHERE id = :id AND state IN ('waiting', 'held')
   AND NOT EXISTS (SELECT 1 FROM glass WHERE glass.job_id = job.id);

-- break_glass
INSERT INTO glass (job_id, by, why, at, priority)
SELECT id, :by, :why, :at, priority FROM job
 WHERE id = :id AND state IN ('waiting', 'held')
    ON CONFLICT (job_id) DO UPDATE SET by = :by, why = :why, at = :at;

-- bind
UPDATE glass SET receiver = :receiver
 WHERE job_id = (SELECT id FROM job
                  WHERE id = :id AND claim = :claim AND state = 'working');

-- hurry
UPDATE job
   SET state = 'waiting', attempts = 0, crashes = 0, faults = 0, reason = '',
       not_before = :now, priority = :priority
 WHERE id = :id;

-- calm
-- The priority that a job had before an order.
UPDATE job SET priority = (SELECT priority FROM glass WHERE job_id = :id)
 WHERE id = :id AND EXISTS (SELECT 1 FROM glass WHERE job_id = :id);

-- withdraw
DELETE FROM glass WHERE job_id = :id;

-- hold_route
INSERT INTO held_route (route, by, why, since)
VALUES (:route, :by, :why, :since)
    ON CONFLICT (route) DO NOTHING;

-- release_route
DELETE FROM held_route WHERE route = :route;

-- held_routes
SELECT route, by, why, since FROM held_route ORDER BY route;
