-- Counts that need no scan, and what was done when.

-- How many items a service has, how many of them wait and how many are quarantined: what is folded here, plus what
-- has changed since.  Kept by triggers, so it is exact whoever changes those tables.
CREATE TABLE service_count (
    service_id  integer NOT NULL,
    what        text NOT NULL CHECK (what IN ('joined', 'waiting', 'quarantined')),
    number      bigint NOT NULL,
    PRIMARY KEY (service_id, what)
) WITH (fillfactor = 50);

-- One row for each statement and service, so that no two statements wait for each other; folded every second.
CREATE TABLE count_change (
    change_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    service_id  integer NOT NULL,
    what        text NOT NULL,
    number      bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- Called with what is counted, and 1 or -1.
CREATE FUNCTION count_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO count_change (service_id, what, number)
    SELECT service_id, TG_ARGV[0], TG_ARGV[1]::integer * count(*) FROM changed GROUP BY service_id;
    RETURN NULL;
END $$;

CREATE TRIGGER item_service_added AFTER INSERT ON item_service REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION count_changed('joined', '1');
CREATE TRIGGER item_service_gone AFTER DELETE ON item_service REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION count_changed('joined', '-1');
CREATE TRIGGER waiting_added AFTER INSERT ON waiting REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION count_changed('waiting', '1');
CREATE TRIGGER waiting_gone AFTER DELETE ON waiting REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION count_changed('waiting', '-1');
CREATE TRIGGER quarantine_added AFTER INSERT ON quarantine REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION count_changed('quarantined', '1');
CREATE TRIGGER quarantine_gone AFTER DELETE ON quarantine REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION count_changed('quarantined', '-1');

-- What is there already.  The triggers' locks keep others from changing it until this is committed.
INSERT INTO service_count (service_id, what, number)
SELECT service_id, 'joined', count(*) FROM item_service GROUP BY service_id
UNION ALL SELECT service_id, 'waiting', count(*) FROM waiting GROUP BY service_id
UNION ALL SELECT service_id, 'quarantined', count(*) FROM quarantine GROUP BY service_id;

-- What was done in each second (kept for minutes), minute (for days) and hour (for ever) that had anything.  Each node
-- adds its own counts.
CREATE TABLE history (
    step        text NOT NULL CHECK (step IN ('second', 'minute', 'hour')),
    at          timestamptz NOT NULL,          -- when it began
    service_id  integer NOT NULL,
    settled     bigint NOT NULL DEFAULT 0,     -- items
    buckets     bigint NOT NULL DEFAULT 0,     -- submits that were stored
    given_back  bigint NOT NULL DEFAULT 0,
    dead        bigint NOT NULL DEFAULT 0,
    disconnects bigint NOT NULL DEFAULT 0,
    bad_submits bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (step, at, service_id)
) WITH (fillfactor = 70);
CREATE INDEX history_service ON history (service_id, step, at);

-- What each client settled on each of the last days, by UTC.
CREATE TABLE client_day (
    day         date NOT NULL,
    client_id   text NOT NULL,
    service_id  integer NOT NULL,
    settled     bigint NOT NULL,
    PRIMARY KEY (day, client_id, service_id)
) WITH (fillfactor = 70);

-- What happened, on all nodes; the newest hundred thousand are kept.
CREATE TABLE event (
    event_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL,
    boot        bigint NOT NULL,
    kind        text NOT NULL,
    client_id   text,
    service     text,                          -- its name
    bucket_id   text,
    text        text NOT NULL
);
CREATE INDEX event_client ON event (client_id, event_id) WHERE client_id IS NOT NULL;
CREATE INDEX event_service ON event (service, event_id) WHERE service IS NOT NULL;
CREATE INDEX event_kind ON event (kind, event_id);
CREATE INDEX event_fault ON event (at) WHERE kind = 'fault';

-- What a node says of itself with each renewal of its lease.
ALTER TABLE node ADD COLUMN load jsonb NOT NULL DEFAULT '{}';

CREATE INDEX client_registered ON client (client_id) WHERE registered;
CREATE INDEX client_deactivated ON client (client_id) WHERE deactivated IS NOT NULL;
