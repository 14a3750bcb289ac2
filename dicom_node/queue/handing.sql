-- handing_schema
-- Which parts of hand-overs this queue has taken, so that none is taken twice.
CREATE TABLE IF NOT EXISTS handed (
    handover  TEXT NOT NULL,
    part      INTEGER NOT NULL,
    added     INTEGER NOT NULL,  -- jobs
    known     INTEGER NOT NULL,  -- jobs that were here already, or were done here
    PRIMARY KEY (handover, part)
) WITHOUT ROWID;

-- open_instances
SELECT id, sop_instance_uid, study_instance_uid, digest, file, received, sop_class_uid,
       calling_ae_title, patient
  FROM instance
 WHERE id IN (SELECT instance_id FROM job WHERE state NOT IN ('sent', 'dropped'))
 ORDER BY id;

-- open_jobs
-- Of an order to send as it came, only the priority before it: that order ends here.
SELECT job.id, job.route, job.destination, job.state, job.attempts, job.not_before,
       job.filtered, job.purpose, job.reason, COALESCE(glass.priority, job.priority),
       job.crashes, job.faults, job.receiver, job.settled
  FROM job LEFT JOIN glass ON glass.job_id = job.id
 WHERE job.instance_id = :id AND job.state NOT IN ('sent', 'dropped')
 ORDER BY job.id;

-- open_promise
SELECT destination, study, sop_class_uid, sop_instance_uid, sent, asks, refusals, is_open
  FROM commitment WHERE job_id = :id;

-- open_requests
SELECT peer, transaction_uid, instances FROM commitment_request ORDER BY id;

-- was_handed
SELECT added, known FROM handed WHERE handover = :handover AND part = :part;

-- note_handed
INSERT INTO handed VALUES (:handover, :part, :added, :known);

-- sum_handed
SELECT count(*), COALESCE(sum(added), 0), COALESCE(sum(known), 0)
  FROM handed WHERE handover = :handover AND part > 0;

-- instance_again
INSERT INTO instance (sop_instance_uid, study_instance_uid, digest, file, received,
                      sop_class_uid, calling_ae_title, patient)
VALUES (:sop_instance_uid, :study_instance_uid, :digest, :file, :received,
        :sop_class_uid, :calling_ae_title, :patient)
RETURNING id;

-- stands
SELECT id FROM job
 WHERE instance_id = :instance_id AND route = :route AND destination = :destination
   AND state <> 'dropped' LIMIT 1;

-- job_again
INSERT INTO job (instance_id, study_instance_uid, route, destination, priority, lane,
                 state, attempts, not_before, filtered, purpose, reason, crashes, faults,
                 receiver, settled)
VALUES (:instance_id, :study_instance_uid, :route, :destination, :priority, :lane,
        :state, :attempts, :not_before, :filtered, :purpose, :reason, :crashes, :faults,
        :receiver, :settled)
RETURNING id;

-- promise_again
INSERT INTO commitment (job_id, destination, study, sop_class_uid, sop_instance_uid, sent,
                        due, asks, refusals, is_open, reason)
VALUES (:job_id, :destination, :study, :sop_class_uid, :sop_instance_uid, :sent, :now,
        :asks, :refusals, :is_open, '');

-- request_again
INSERT INTO commitment_request (peer, transaction_uid, instances, not_before, attempts,
                                reason)
VALUES (:peer, :transaction_uid, :instances, :now, 0, '') ON CONFLICT DO NOTHING;

-- give_away
UPDATE job SET state = 'dropped', reason = :reason, lease_until = NULL
 WHERE id = :id AND state NOT IN ('sent', 'dropped');

-- forget_promise
DELETE FROM commitment WHERE job_id = :id;

-- forget_promise_asked
DELETE FROM commitment_asked WHERE job_id = :id;

-- forget_request
DELETE FROM commitment_request WHERE peer = :peer AND transaction_uid = :transaction_uid;

-- needs_file
SELECT 1 FROM instance WHERE file = :file
UNION ALL
SELECT 1 FROM job WHERE filtered = :file
 LIMIT 1;
