-- settle_sent
-- Of what left by order it is remembered: the promise comes when the order is over.
UPDATE job
   SET state = 'uncommitted', settled = :now, lease_until = NULL, reason = '',
       receiver = :destination,
       ordered = EXISTS (SELECT 1 FROM glass WHERE job_id = job.id)
 WHERE id = :id AND claim = :claim AND state = 'working';

-- carried_out
-- Orders that earlier versions did not end when what they ordered was sent.
SELECT job_id FROM glass
 WHERE EXISTS (SELECT 1 FROM commitment
                WHERE commitment.job_id = glass.job_id AND commitment.sent >= glass.at)
    OR NOT EXISTS (SELECT 1 FROM job
                    WHERE job.id = glass.job_id AND job.state IN ('waiting', 'working'));

-- note_sent
-- What was sent again after a refusal keeps count of its refusals.
INSERT INTO commitment (job_id, destination, study, sop_class_uid, sop_instance_uid, sent,
                        due, asks, refusals, is_open, reason)
VALUES (:id, :destination, :study, :sop_class_uid, :sop_instance_uid, :now, :due, 0, 0, 1,
        '')
    ON CONFLICT (job_id) DO UPDATE
   SET destination = excluded.destination, sop_class_uid = excluded.sop_class_uid,
       sop_instance_uid = excluded.sop_instance_uid, sent = excluded.sent,
       due = excluded.due, asks = 0, is_open = 1, reason = '';

-- due_to
-- Looked up for each, however much is due to one of them.
SELECT value FROM json_each(:destinations)
 WHERE EXISTS (SELECT 1 FROM commitment
                WHERE is_open AND destination = value AND due <= :now);

-- due
SELECT study FROM commitment
 WHERE is_open AND destination = :destination AND due <= :now
 ORDER BY due LIMIT 1;

-- to_ask
-- What was not asked for goes with what is due of its study.
SELECT job_id, sop_class_uid, sop_instance_uid, asks + 1 FROM commitment
 WHERE is_open AND destination = :destination AND study = :study
   AND (due <= :now OR asks = 0)
 ORDER BY job_id LIMIT :most;

-- note_asked
INSERT INTO commitment_asked (transaction_uid, job_id, number)
VALUES (:transaction_uid, :id, :number);

-- forget_earlier
DELETE FROM commitment_asked WHERE job_id = :id AND number <= :number - :kept;

-- number_column
-- Files of earlier versions do not have it.
ALTER TABLE commitment_asked ADD COLUMN number INTEGER NOT NULL DEFAULT 0;

-- has_number
SELECT name FROM pragma_table_info('commitment_asked') WHERE name = 'number';

-- asked
UPDATE commitment SET asks = asks + 1, due = :due WHERE job_id = :id;

-- put_off
UPDATE commitment SET due = :due, reason = :reason
 WHERE is_open
   AND job_id IN (SELECT job_id FROM commitment_asked
                   WHERE transaction_uid = :transaction_uid);

-- asked_for
SELECT c.job_id, job.instance_id, c.refusals, c.destination
  FROM commitment_asked AS a
  JOIN commitment AS c ON c.job_id = a.job_id
  JOIN job ON job.id = c.job_id
 WHERE a.transaction_uid = :transaction_uid AND c.is_open
   AND job.state = 'uncommitted'
   AND c.sop_class_uid = :sop_class_uid AND c.sop_instance_uid = :sop_instance_uid;

-- committed
UPDATE job SET state = 'sent', settled = :now
 WHERE id = :id AND state = 'uncommitted';

-- forget_asked
DELETE FROM commitment_asked WHERE job_id = :id;

-- forget
DELETE FROM commitment WHERE job_id = :id;

-- refused
UPDATE commitment SET is_open = 0, refusals = :refusals, reason = :reason
 WHERE job_id = :id;

-- put_back
UPDATE job SET state = :state, attempts = 0, not_before = :not_before, reason = :reason
 WHERE id = :id AND state = 'uncommitted';

-- not_asked
SELECT c.job_id, job.instance_id
  FROM commitment AS c JOIN job ON job.id = c.job_id
 WHERE job.state = 'uncommitted'
   AND c.destination NOT IN (SELECT value FROM json_each(:asked));

-- awaited
-- SQLite takes the reason from the row that has the most asks.
SELECT destination, count(*), min(sent), max(asks), reason FROM commitment
 WHERE is_open GROUP BY destination ORDER BY destination;

-- count_requests
-- Without the same one, if that is there.
SELECT count(*) FROM commitment_request
 WHERE peer = :peer AND transaction_uid <> :transaction_uid;

-- take
INSERT INTO commitment_request (peer, transaction_uid, instances, not_before, attempts,
                                reason)
VALUES (:peer, :transaction_uid, :instances, :now, 0, '')
    ON CONFLICT (peer, transaction_uid) DO UPDATE
   SET instances = excluded.instances, not_before = excluded.not_before, attempts = 0;

-- peers_to_tell
SELECT DISTINCT peer FROM commitment_request WHERE not_before <= :now ORDER BY peer;

-- to_tell
SELECT id, peer, transaction_uid, instances, attempts, reason FROM commitment_request
 WHERE peer = :peer AND not_before <= :now ORDER BY not_before, id LIMIT 1;

-- untold
SELECT id, peer, transaction_uid, instances, attempts, reason FROM commitment_request
 ORDER BY id;

-- told
DELETE FROM commitment_request WHERE id = :id;

-- tell_later
UPDATE commitment_request
   SET not_before = :not_before, attempts = attempts + 1, reason = :reason
 WHERE id = :id;

-- known
SELECT instance.sop_class_uid, instance.file, job.state, job.reason
  FROM instance JOIN job ON job.instance_id = instance.id
 WHERE instance.sop_instance_uid = :sop_instance_uid;

-- forget_stale_asked
DELETE FROM commitment_asked
 WHERE job_id IN (SELECT job_id FROM commitment
                   WHERE job_id NOT IN (SELECT id FROM job
                                         WHERE state NOT IN ('sent', 'dropped')));

-- forget_stale
-- Of jobs that were discarded, or that are gone.
DELETE FROM commitment
 WHERE job_id NOT IN (SELECT id FROM job WHERE state NOT IN ('sent', 'dropped'));
