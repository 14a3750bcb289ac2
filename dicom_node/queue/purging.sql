-- index_purged
-- Apart from the schema, as queues of earlier versions get it after it.
CREATE INDEX IF NOT EXISTS instance_without_file ON instance (received)
 WHERE file IS NULL;

-- purgeable
-- Instances of long ago that nobody is owed, and that were last sent long ago. The last
-- of all stays, so that no number is ever given a second time.
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
 LIMIT :count;

-- purge_jobs
DELETE FROM job WHERE instance_id IN (SELECT value FROM json_each(:ids));

-- purge_instances
DELETE FROM instance WHERE id IN (SELECT value FROM json_each(:ids));

-- give_back
-- Pages that nothing is in, to the file system; a few at a time.
PRAGMA incremental_vacuum (1000);
