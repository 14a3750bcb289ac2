-- Whether a node that shares the queue has taken it in to be marked: then it leaves by
-- whoever marks it, even if other nodes know its route otherwise.
ALTER TABLE job ADD COLUMN marks INTEGER NOT NULL DEFAULT 0;
