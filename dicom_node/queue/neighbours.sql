-- known_folder
SELECT id FROM folder;

-- note_folder
INSERT INTO folder VALUES (:id);

-- be_there
-- Held by the session, so that the server gives it up for whoever dies.
SELECT pg_try_advisory_lock(hashtextextended('miadmark node ' || :name, 0));

-- note_node
INSERT INTO node (name, token, rules, seen)
VALUES (:name, :token, :rules, clock_timestamp())
    ON CONFLICT (name) DO UPDATE
   SET token = excluded.token, rules = excluded.rules, seen = excluded.seen;

-- others
-- Who else is there: nobody can have what he holds.
SELECT name, token, rules FROM node
 WHERE name <> :name
   AND NOT pg_try_advisory_xact_lock(hashtextextended('miadmark node ' || name, 0));

-- gone
-- Not seen for a while, and his session is over. After the server was started again all
-- have a while to come back.
SELECT name FROM node
 WHERE name <> :name
   AND seen < clock_timestamp() - make_interval(secs => :seconds)
   AND pg_postmaster_start_time() < clock_timestamp() - make_interval(secs => :seconds)
   AND pg_try_advisory_xact_lock(hashtextextended('miadmark node ' || name, 0));

-- end_leases
UPDATE job SET lease_until = :now
 WHERE state = 'working' AND lease_until > :now
   AND node IN (SELECT json_array_elements_text((:names)::json));

-- forget_nodes
DELETE FROM node
 WHERE seen < clock_timestamp() - interval '1 day'
   AND name IN (SELECT json_array_elements_text((:names)::json))
   AND NOT EXISTS (SELECT 1 FROM job WHERE job.state = 'working' AND job.node = node.name);
