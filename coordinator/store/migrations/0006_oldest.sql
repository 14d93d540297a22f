-- The oldest of each priority, however many of another one wait before it.
CREATE INDEX waiting_priority ON waiting (service_id, priority, rank_at, item_id);
