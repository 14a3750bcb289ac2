-- study
SELECT route, study_instance_uid, stage, arrived, expected, due FROM study
 WHERE route = :route AND study_instance_uid = :study;

-- keep_study
INSERT INTO study (route, study_instance_uid, stage, arrived, expected, due)
VALUES (:route, :study_instance_uid, :stage, :arrived, :expected, :due)
    ON CONFLICT (route, study_instance_uid) DO UPDATE
   SET stage = excluded.stage, arrived = excluded.arrived,
       expected = excluded.expected, due = excluded.due;

-- studies_due
SELECT route, study_instance_uid, stage, arrived, expected, due FROM study
 WHERE stage <> 'complete' AND due <= :now
 ORDER BY due LIMIT 16;

-- studies_gathering
SELECT route, study_instance_uid, stage, arrived, expected, due FROM study
 WHERE stage <> 'complete'
 ORDER BY due;

-- complete_study
UPDATE study SET stage = 'complete', due = :now
 WHERE route = :route AND study_instance_uid = :study;

-- study_is_due
-- Its jobs that wait for the rest of it; not those that are tried again at their time.
UPDATE job SET not_before = :now
 WHERE state = 'waiting' AND study_instance_uid = :study AND route = :route
   AND not_before = :not_yet;

-- forget_studies
DELETE FROM study WHERE stage = 'complete' AND due < :before;
