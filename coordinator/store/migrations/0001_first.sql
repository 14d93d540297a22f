-- The first schema.  Postgres 14 to 18.
--
-- Lock order everywhere: bucket rows by bucket_id, then item ids ascending, then client_service.
-- Whoever moves items between `waiting` and buckets holds the maker's lock of that service (an advisory lock).
-- `result` may one day be distributed by item_id: every key of it contains item_id, no foreign key leaves it,
-- and no statement on the hot path joins it with another table.

CREATE TABLE service (
    service_id  integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL UNIQUE CHECK (name ~ '^[A-Za-z0-9_.-]{1,64}$'),
    plugin      text NOT NULL,
    title       text NOT NULL,
    state       text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'paused', 'revoked')),
    settings    jsonb NOT NULL DEFAULT '{}',   -- only what differs from the plugin's defaults
    added_at    timestamptz NOT NULL DEFAULT now()
);

-- The catalogue: one row whatever the number of services.
CREATE TABLE item (
    item_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key         text NOT NULL UNIQUE CHECK (length(key) BETWEEN 1 AND 256),
    attributes  jsonb NOT NULL DEFAULT '{}',
    added_at    timestamptz NOT NULL DEFAULT now()
);

-- Written once when an item joins a service; the reason why nothing joins twice.
-- An item of a service is in exactly one of: waiting, an open bucket, quarantine; else it is settled.
CREATE TABLE item_service (
    service_id  integer NOT NULL REFERENCES service,
    item_id     bigint NOT NULL,
    PRIMARY KEY (service_id, item_id)
);

CREATE TABLE waiting (
    service_id  integer NOT NULL,
    item_id     bigint NOT NULL,
    rank_at     timestamptz NOT NULL,          -- since − head start; computed once, never changed
    since       timestamptz NOT NULL,
    priority    smallint NOT NULL CHECK (priority BETWEEN 0 AND 200),
    PRIMARY KEY (service_id, item_id)
);
CREATE INDEX waiting_rank ON waiting (service_id, rank_at, item_id);

CREATE TABLE quarantine (
    service_id  integer NOT NULL,
    item_id     bigint NOT NULL,
    attempts    integer NOT NULL,
    since       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (service_id, item_id)
);

-- Small hot rows, one for ~180 items.
--
--   ready ──claim──> claimed ──submit──> done
--   claimed ──dead_after──> dead ──submit──> claimed | done;  dead ──release_after──> ready
--   claimed ──disconnect, release, final submit with items left──> ready
--   ready ──its last item deleted, settled elsewhere or taken out──> done;  ready ──split──> done
CREATE SEQUENCE claim_number;

CREATE TABLE bucket (
    bucket_id   uuid PRIMARY KEY,
    service_id  integer NOT NULL REFERENCES service,
    state       text NOT NULL DEFAULT 'ready' CHECK (state IN ('ready', 'claimed', 'dead', 'done')),
    rank_at     timestamptz NOT NULL,          -- the front rank of the run that made it
    shuffle     uuid NOT NULL DEFAULT gen_random_uuid(),   -- order within a rank; drawn anew at each return
    since       timestamptz NOT NULL,          -- the longest wait among its items began then
    priority    smallint NOT NULL,             -- the most urgent among its items
    settled     bit varying NOT NULL,          -- one bit an item: settled, deleted, or gone to another bucket
    attempts    integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    claim       bigint NOT NULL DEFAULT 0,     -- the newest claim's number; 0 before the first
    client_id   text,                          -- who holds it, while claimed or dead
    session_id  uuid,                          -- null while it is kept for a client whose node drained
    boot        bigint,
    touched_at  timestamptz,                   -- claimed, last settled an item, or marked dead, then
    kept_until  timestamptz,
    split_at    timestamptz,                   -- broke too many clients: is cut up then, not handed out whole
    twins       boolean NOT NULL DEFAULT false,  -- some of its items stand in a second open bucket (see twin)
    indexed     boolean NOT NULL DEFAULT true,   -- whether bucket_items.open is still to be taken back
    CHECK ((state IN ('claimed', 'dead')) = (client_id IS NOT NULL)),
    CHECK ((state IN ('claimed', 'dead')) = (touched_at IS NOT NULL)),
    CHECK (client_id IS NOT NULL OR (session_id IS NULL AND boot IS NULL AND kept_until IS NULL)),
    CHECK (client_id IS NULL OR (session_id IS NULL) = (kept_until IS NOT NULL)),
    CHECK (split_at IS NULL OR state = 'ready'),
    CHECK ((bit_count(settled) = length(settled)) <= (state = 'done'))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
CREATE INDEX bucket_ready ON bucket (service_id, rank_at, shuffle) WHERE state = 'ready' AND split_at IS NULL;
CREATE INDEX bucket_holder ON bucket (client_id, session_id) WHERE client_id IS NOT NULL;
CREATE INDEX bucket_held ON bucket (service_id, state, touched_at) WHERE state IN ('claimed', 'dead');
CREATE INDEX bucket_kept ON bucket (kept_until) WHERE kept_until IS NOT NULL;
CREATE INDEX bucket_done ON bucket (bucket_id) WHERE state = 'done' AND indexed;
CREATE INDEX bucket_split ON bucket (split_at) WHERE split_at IS NOT NULL;

-- What a bucket is of; never changed, but for `open`, which goes to false some time after the bucket is done.
CREATE TABLE bucket_items (
    bucket_id   uuid PRIMARY KEY,
    items       bigint[] NOT NULL,             -- bit n of bucket.settled is items[n + 1]
    frame       text NOT NULL,                 -- the same as the JSON array that a client is sent
    open        boolean NOT NULL DEFAULT true
);
-- Which open bucket holds an item, without a scan.
CREATE INDEX bucket_items_open ON bucket_items USING gin (items) WHERE open;

-- An item that is in two open buckets, since it was prioritised while the first was claimed.
CREATE TABLE twin (
    service_id  integer NOT NULL,
    item_id     bigint NOT NULL,
    first_id    uuid NOT NULL,                 -- the bucket that was claimed
    second_id   uuid NOT NULL,                 -- the urgent one
    settled_by  bigint,                        -- the claim through which one copy was settled
    PRIMARY KEY (service_id, item_id)
);
CREATE INDEX twin_first ON twin (first_id);
CREATE INDEX twin_second ON twin (second_id);

-- One row a handing-out, written by the claim statement itself; the origin of results.
CREATE TABLE claim (
    claim       bigint PRIMARY KEY,
    bucket_id   uuid NOT NULL,
    service_id  integer NOT NULL,
    client_id   text NOT NULL,
    session_id  uuid NOT NULL,
    boot        bigint NOT NULL,
    given       bit varying NOT NULL,          -- the items that were handed out, as in bucket.settled
    settled     integer NOT NULL DEFAULT 0,
    begun_at    timestamptz NOT NULL DEFAULT now(),
    ended_at    timestamptz,
    ended       text CHECK (ended IN ('settled', 'partial', 'released', 'cut_off', 'dead', 'drained', 'crashed',
                                      'undelivered', 'recollected', 'revoked', 'deactivated', 'left',
                                      'unregistered', 'taken')),
    invalidated_by bigint,
    rechecked   boolean NOT NULL DEFAULT false,  -- its results were old, and their items wait again
    CHECK ((ended IS NULL) = (ended_at IS NULL))
) WITH (fillfactor = 80);
CREATE INDEX claim_bucket ON claim (bucket_id, claim);
CREATE INDEX claim_client ON claim (client_id, claim);
CREATE INDEX claim_due ON claim (service_id, ended_at) WHERE settled > 0 AND NOT rechecked;

-- Insert only.  Valid when its claim is; the newest valid one is the current one.
CREATE TABLE result (
    item_id     bigint NOT NULL,
    service_id  integer NOT NULL,
    claim       bigint NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    value       jsonb NOT NULL,
    PRIMARY KEY (item_id, service_id, claim)
);
-- Results arrive nearly in the order of their claims, so block ranges are enough to find those of a claim.
CREATE INDEX result_claim ON result USING brin (claim) WITH (pages_per_range = 16, autosummarize = on);

CREATE TABLE client (
    client_id   text PRIMARY KEY CHECK (client_id ~ '^[A-Za-z0-9_.-]{1,64}$'),
    secret_hash bytea,                         -- null after client.forget_secret
    screen_name text NOT NULL,
    registered  boolean NOT NULL DEFAULT true,
    deactivated text,                          -- why an admin deactivated it, or null
    registered_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE client_service (
    client_id   text NOT NULL REFERENCES client,
    service_id  integer NOT NULL REFERENCES service,
    joined      boolean NOT NULL DEFAULT true,
    inactive    text CHECK (inactive IN ('idle', 'admin')),
    profile     jsonb NOT NULL DEFAULT '{}',
    last_access timestamptz NOT NULL DEFAULT now(),
    streak      integer NOT NULL DEFAULT 0,    -- give-backs and cut-offs since it last settled something
    wait_until  timestamptz,                   -- is served nothing before (streak)
    report_until timestamptz,                  -- is served nothing before (its own report)
    assigned    bigint NOT NULL DEFAULT 0,     -- buckets
    processed   bigint NOT NULL DEFAULT 0,     -- submits that were stored
    settled     bigint NOT NULL DEFAULT 0,     -- items
    given_back  bigint NOT NULL DEFAULT 0,
    dead        bigint NOT NULL DEFAULT 0,
    disconnects bigint NOT NULL DEFAULT 0,     -- while holding
    bad_submits bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (client_id, service_id)
) WITH (fillfactor = 70);
CREATE INDEX client_service_idle ON client_service (service_id, last_access) WHERE joined AND inactive IS NULL;

-- A bucket that a client gave back is not offered to it again until then.
CREATE TABLE giveback (
    client_id   text NOT NULL,
    bucket_id   uuid NOT NULL,
    times       integer NOT NULL,
    until       timestamptz NOT NULL,
    PRIMARY KEY (client_id, bucket_id)
);

CREATE TABLE node (
    boot        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL,
    state       text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'draining', 'gone')),
    version     text NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    lease_until timestamptz NOT NULL
);
CREATE INDEX node_here ON node (lease_until) WHERE state <> 'gone';

CREATE TABLE session (
    session_id  uuid PRIMARY KEY,
    client_id   text NOT NULL,
    boot        bigint NOT NULL,
    address     text NOT NULL,
    agent       text,
    began_at    timestamptz NOT NULL DEFAULT now(),
    ended_at    timestamptz
);
CREATE INDEX session_here ON session (client_id) WHERE ended_at IS NULL;
CREATE INDEX session_over ON session (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE token (
    token_id    text PRIMARY KEY,
    hash        bytea NOT NULL UNIQUE,
    role        text NOT NULL CHECK (role IN ('admin', 'operator', 'viewer', 'enrolment')),
    label       text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz,
    uses_left   integer CHECK (uses_left >= 0),
    revoked_at  timestamptz
);

-- By months, so that what is old goes by dropping a table.
CREATE SEQUENCE activity_number;

CREATE TABLE activity (
    activity_id bigint NOT NULL DEFAULT nextval('activity_number'),
    at          timestamptz NOT NULL DEFAULT now(),
    who         text NOT NULL,
    action      text NOT NULL,
    target      text,
    outcome     text NOT NULL,
    PRIMARY KEY (at, activity_id)
) PARTITION BY RANGE (at);
CREATE INDEX activity_action ON activity (action, at, activity_id);
CREATE INDEX activity_target ON activity (target, at, activity_id);

-- What belongs to no month that was made ready; its lines move to their month once that is made.
CREATE TABLE activity_other PARTITION OF activity DEFAULT;

-- Make this month and the next two ready, and drop those of which all is older than so many days.  It gives up, for
-- the next one to try, rather than let whoever writes wait long.
CREATE FUNCTION activity_keep(days integer) RETURNS void LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    first   timestamp;
    since   timestamptz;
    upto    timestamptz;
    name    text;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('coordinator.activity')) THEN
        RETURN;
    END IF;
    FOR ahead IN 0..2 LOOP
        first := date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => ahead);
        since := first AT TIME ZONE 'UTC';
        upto := (first + interval '1 month') AT TIME ZONE 'UTC';
        name := to_char(first, '"activity_"YYYY_MM');
        CONTINUE WHEN to_regclass(name) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE activity INCLUDING DEFAULTS)', name);
        EXECUTE format('WITH moved AS (DELETE FROM activity_other WHERE at >= $1 AND at < $2 RETURNING *)
                        INSERT INTO %I SELECT * FROM moved', name) USING since, upto;
        EXECUTE format('ALTER TABLE activity ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, since, upto);
    END LOOP;
    FOR name IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'activity'::regclass AND c.relname ~ '^activity_\d{4}_\d{2}$'
           AND (to_date(c.relname, '"activity_"YYYY_MM') + interval '1 month') AT TIME ZONE 'UTC'
               < now() - make_interval(days => days)
    LOOP
        EXECUTE format('DROP TABLE %I', name);
    END LOOP;
    DELETE FROM activity_other WHERE at < now() - make_interval(days => days);
EXCEPTION WHEN lock_not_available THEN
    NULL;
END $$;

SELECT activity_keep(400);
