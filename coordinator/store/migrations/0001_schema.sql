-- The schema.  Postgres 14 to 18.
--
-- Lock order everywhere: bucket rows by bucket_id, then item ids ascending, then membership.
-- Whoever moves items between `waiting` and buckets holds the builder's lock of that service (an advisory lock).
-- `result` may one day be distributed by item_id: every key of it contains item_id, no foreign key leaves it,
-- and no statement on the hot path joins `result` with another table.
--
-- What several statements share is a view or a function.  A view, and a function of one expression, is put into the
-- statement that names it: it costs what its text costs.  Beside the others stands what they cost.


-- Services and the catalogue -------------------------------------------------------------------------------------

--   active ──pause──> paused ──resume──> active;  active, paused ──revoke──> revoked ──restore──> active
CREATE TABLE service (
    service_id  integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL UNIQUE,
    plugin      text NOT NULL,
    title       text NOT NULL,
    state       text NOT NULL DEFAULT 'active',
    settings    jsonb NOT NULL DEFAULT '{}',   -- only what differs from the plugin's defaults
    added_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT service_name_is_a_word CHECK (name ~ '^[A-Za-z0-9_.-]{1,64}$'),
    CONSTRAINT service_state_is_known CHECK (state IN ('active', 'paused', 'revoked'))
);

-- The catalogue: one row whatever the number of services.
CREATE TABLE item (
    item_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key         text NOT NULL UNIQUE,
    attributes  jsonb NOT NULL DEFAULT '{}',
    added_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT item_key_has_a_length CHECK (length(key) BETWEEN 1 AND 256)
);

-- An item as clients see it, in JSON.  Put together as text where no attribute can hide `item` or `key`: a third of what
-- the same costs as jsonb.
CREATE FUNCTION item_json(item_id bigint, key text, attributes jsonb) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN attributes = '{}' THEN '{"item":' || item_id || ',"key":' || to_json(key)::text || '}'
            WHEN attributes ?| '{item,key}'
            THEN (attributes || jsonb_build_object('item', item_id, 'key', key))::text
            ELSE '{"item":' || item_id || ',"key":' || to_json(key)::text || ',' || substr(attributes::text, 2)
       END;

-- How far a new service has come through the catalogue; gone once it is through.  Items behind `upto` join it when
-- they are added.
CREATE TABLE service_fill (
    service_id  integer PRIMARY KEY REFERENCES service,
    after       bigint NOT NULL DEFAULT 0,
    upto        bigint NOT NULL
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
    priority    smallint NOT NULL,
    PRIMARY KEY (service_id, item_id),
    CONSTRAINT waiting_priority_is_in_bounds CHECK (priority BETWEEN 0 AND 200)
);
CREATE INDEX waiting_rank ON waiting (service_id, rank_at, item_id);
-- The oldest of each priority, however many of another one wait before it.
CREATE INDEX waiting_priority ON waiting (service_id, priority, rank_at, item_id);

-- Single items that failed too often, until an admin decides.
CREATE TABLE quarantine (
    service_id  integer NOT NULL,
    item_id     bigint NOT NULL,
    attempts    integer NOT NULL,
    since       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (service_id, item_id)
);


-- Buckets ----------------------------------------------------------------------------------------------------------

-- Whether every item of a bucket is settled; takes bucket.settled.
CREATE FUNCTION all_settled(bits bit varying) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN bit_count(bits) = length(bits);

-- Whether a bucket has failed so often that it is cut up; takes bucket.attempts.  protocol.md, "Give-backs"
CREATE FUNCTION attempts_spent(attempts integer) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN attempts >= 3;

-- How many items of a bucket are still to be settled; takes bucket.settled.
CREATE FUNCTION items_left(bits bit varying) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN length(bits) - bit_count(bits)::integer;

CREATE SEQUENCE claim_number;

-- Small hot rows, one for ~180 items.
--
--   ready ──claim──> claimed ──submit──> done
--   claimed ──dead_after──> dead ──submit──> claimed | done;  dead ──release_after──> ready
--   claimed ──disconnect, release, final submit with items left──> ready
--   ready ──its last item deleted, settled elsewhere or taken out──> done;  ready ──split──> done
CREATE TABLE bucket (
    bucket_id   uuid PRIMARY KEY,
    service_id  integer NOT NULL REFERENCES service,
    state       text NOT NULL DEFAULT 'ready',
    rank_at     timestamptz NOT NULL,          -- the front rank of the run that made it
    shuffle     uuid NOT NULL DEFAULT gen_random_uuid(),   -- order within a rank; drawn anew at each return
    since       timestamptz NOT NULL,          -- the longest wait among its items began then
    priority    smallint NOT NULL,             -- the most urgent among its items
    settled     bit varying NOT NULL,          -- one bit an item: settled, deleted, or gone to another bucket
    attempts    integer NOT NULL DEFAULT 0,
    claim_id    bigint NOT NULL DEFAULT 0,     -- the newest claim; 0 before the first
    client_id   text,                          -- who holds it, while claimed or dead
    session_id  uuid,                          -- null while it is kept for a client whose node drained
    boot        bigint,
    touched_at  timestamptz,                   -- claimed, last settled an item, or marked dead, then
    kept_until  timestamptz,
    split_at    timestamptz,                   -- broke too many clients: is cut up then, not handed out whole
    twins       boolean NOT NULL DEFAULT false,  -- some of its items stand in a second open bucket (see twin)
    indexed     boolean NOT NULL DEFAULT true,   -- whether bucket_items.open is still to be taken back
    CONSTRAINT bucket_state_is_known CHECK (state IN ('ready', 'claimed', 'dead', 'done')),
    CONSTRAINT bucket_attempts_are_counted CHECK (attempts >= 0),
    CONSTRAINT bucket_has_a_holder_while_it_is_held CHECK ((state IN ('claimed', 'dead')) = (client_id IS NOT NULL)),
    CONSTRAINT bucket_is_touched_while_it_is_held CHECK ((state IN ('claimed', 'dead')) = (touched_at IS NOT NULL)),
    CONSTRAINT bucket_without_holder_is_of_no_session
        CHECK (client_id IS NOT NULL OR (session_id IS NULL AND boot IS NULL AND kept_until IS NULL)),
    CONSTRAINT bucket_is_of_a_session_or_kept CHECK (client_id IS NULL OR (session_id IS NULL) = (kept_until IS NOT NULL)),
    CONSTRAINT bucket_is_split_while_it_is_ready CHECK (split_at IS NULL OR state = 'ready'),
    CONSTRAINT bucket_is_done_when_all_is_settled CHECK (all_settled(settled) <= (state = 'done'))
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
-- Frames are written once and read once, soon: compressing them costs more than it saves.  (CREATE TABLE can say it
-- from version 16 on.)
ALTER TABLE bucket_items ALTER COLUMN frame SET STORAGE EXTERNAL;
-- Which open bucket holds an item, without a scan.  It is known at once: entries that are put aside to be sorted in
-- later cost the making of buckets as much, make one run in ten wait for all of them, and each look-up reads through
-- them.
CREATE INDEX bucket_items_open ON bucket_items USING gin (items) WITH (fastupdate = off) WHERE open;

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


-- Claims and results -------------------------------------------------------------------------------------------------

-- One row a handing-out, written by the claim statement itself; the origin of results.
--
--   open (ended is null) ──> ended by one of the reasons;  an ended one ──its client comes back──> recollected
CREATE TABLE claim (
    claim_id    bigint PRIMARY KEY,            -- of claim_number
    bucket_id   uuid NOT NULL,
    service_id  integer NOT NULL,
    client_id   text NOT NULL,
    session_id  uuid NOT NULL,
    boot        bigint NOT NULL,
    given       bit varying NOT NULL,          -- the items that were handed out, as in bucket.settled
    settled     integer NOT NULL DEFAULT 0,    -- results that were stored
    parts       integer NOT NULL DEFAULT 0,    -- results that left their items unsettled: they stand in no `result`
    begun_at    timestamptz NOT NULL DEFAULT now(),
    ended_at    timestamptz,
    ended       text,                          -- how
    invalidated_by bigint,
    rechecked   boolean NOT NULL DEFAULT false,  -- its results were old, and their items wait again
    CONSTRAINT claim_ended_is_known CHECK (ended IN ('settled', 'partial', 'released', 'cut_off', 'dead', 'drained',
                                                     'crashed', 'undelivered', 'recollected', 'revoked',
                                                     'deactivated', 'left', 'unregistered', 'taken')),
    CONSTRAINT claim_ends_at_a_time CHECK ((ended IS NULL) = (ended_at IS NULL))
) WITH (fillfactor = 80);
CREATE INDEX claim_bucket ON claim (bucket_id, claim_id);
CREATE INDEX claim_client ON claim (client_id, claim_id);
CREATE INDEX claim_due ON claim (service_id, ended_at) WHERE settled > 0 AND NOT rechecked;
CREATE INDEX claim_invalidated ON claim (invalidated_by, claim_id) WHERE invalidated_by IS NOT NULL;

-- Insert only.  Valid when its claim is; the newest valid one is the current one.
CREATE TABLE result (
    item_id     bigint NOT NULL,
    service_id  integer NOT NULL,
    claim_id    bigint NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    value       jsonb NOT NULL,
    PRIMARY KEY (item_id, service_id, claim_id)
);
-- Results arrive nearly in the order of their claims, so block ranges are enough to find those of a claim.
CREATE INDEX result_claim ON result USING brin (claim_id) WITH (pages_per_range = 16, autosummarize = on);

-- One row for each time that results were taken back.  It works on claims: those that it marked name it in
-- claim.invalidated_by, and unmarking them is all it takes to undo it.
CREATE TABLE invalidation (
    invalidation_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT now(),
    client_id   text,                          -- what was asked for; null: any
    service_id  integer,
    since       timestamptz,
    until       timestamptz,
    claims      integer NOT NULL DEFAULT 0,
    results     bigint NOT NULL DEFAULT 0,
    reinstated_at timestamptz,
    requeued    bigint                         -- items of claims up to here wait again; null: all, or none were to
);
CREATE INDEX invalidation_open ON invalidation (invalidation_id) WHERE requeued IS NOT NULL;

-- Claims through which valid results came, of that client and service and within that time (null: any).  A claim is
-- meant if one of its results is, and then all of them.  Only for claims that begin or end outside of the time does it
-- matter when each result came.  Put into the statement, as a view is; the look at the results of a claim costs an index
-- scan for each of its items.
CREATE FUNCTION valid_claims(of_client text, of_service integer, from_time timestamptz, to_time timestamptz)
RETURNS SETOF claim LANGUAGE sql STABLE AS $$
SELECT c.* FROM claim c
 WHERE c.invalidated_by IS NULL AND (c.settled > 0 OR c.parts > 0)
   AND (of_client IS NULL OR c.client_id = of_client) AND (of_service IS NULL OR c.service_id = of_service)
   AND (from_time IS NULL OR c.ended_at IS NULL OR c.ended_at >= from_time)
   AND (to_time IS NULL OR c.begun_at < to_time)
   AND (((from_time IS NULL OR c.begun_at >= from_time) AND (to_time IS NULL OR c.ended_at < to_time))
        OR EXISTS (SELECT FROM bucket_items i CROSS JOIN LATERAL unnest(i.items) AS x (item_id)
                     JOIN result r
                       ON r.item_id = x.item_id AND r.service_id = c.service_id AND r.claim_id = c.claim_id
                    WHERE i.bucket_id = c.bucket_id
                      AND (from_time IS NULL OR r.at >= from_time) AND (to_time IS NULL OR r.at < to_time)))
$$;


-- Clients ------------------------------------------------------------------------------------------------------------

CREATE TABLE client (
    client_id   text PRIMARY KEY,
    secret_hash bytea,                         -- null after client.forget_secret
    screen_name text NOT NULL,
    registered  boolean NOT NULL DEFAULT true,
    deactivated text,                          -- why an admin deactivated it, or null
    registered_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT client_id_is_a_word CHECK (client_id ~ '^[A-Za-z0-9_.-]{1,64}$')
);
CREATE INDEX client_registered ON client (client_id) WHERE registered;
CREATE INDEX client_deactivated ON client (client_id) WHERE deactivated IS NOT NULL;

-- A client in a service.
--
--   active ──idle_after──> inactive (idle) ──asks, joins──> active
--   active, idle ──an admin──> inactive (admin) ──an admin──> active
--   joined ──leaves, unregisters──> not joined ──joins──> joined
CREATE TABLE membership (
    client_id   text NOT NULL REFERENCES client,
    service_id  integer NOT NULL REFERENCES service,
    joined      boolean NOT NULL DEFAULT true,
    inactive    text,                          -- by what, or null
    profile     jsonb NOT NULL DEFAULT '{}',
    last_access timestamptz NOT NULL DEFAULT now(),
    streak      integer NOT NULL DEFAULT 0,    -- give-backs and cut-offs since it last settled something
    wait_until  timestamptz,                   -- is served nothing before (streak)
    report_until timestamptz,                  -- is served nothing before (its own report)
    -- What it did in all.
    assigned    bigint NOT NULL DEFAULT 0,     -- buckets
    processed   bigint NOT NULL DEFAULT 0,     -- submits that were stored
    settled     bigint NOT NULL DEFAULT 0,     -- items
    given_back  bigint NOT NULL DEFAULT 0,
    dead        bigint NOT NULL DEFAULT 0,
    disconnects bigint NOT NULL DEFAULT 0,     -- while holding
    bad_submits bigint NOT NULL DEFAULT 0,
    -- What the rules of its health found.
    health      text NOT NULL DEFAULT 'ok',
    health_reason text,                        -- in words
    -- What those rules look at.  A run ends when the client settles an item; after some buckets in a row that it
    -- settled whole (well), what died before is forgotten.
    well        integer NOT NULL DEFAULT 0,    -- buckets settled whole in a row, without a fault between
    died        integer NOT NULL DEFAULT 0,    -- buckets that were marked dead
    died_run    integer NOT NULL DEFAULT 0,    -- the same, run
    asked_on    integer NOT NULL DEFAULT 0,    -- buckets taken after one had died, run
    hoarded     integer NOT NULL DEFAULT 0,    -- asks while older buckets lay untouched, run
    refused     integer NOT NULL DEFAULT 0,    -- submits refused in a row
    returned    integer NOT NULL DEFAULT 0,    -- give-backs and cut-offs, run; several at a time are one
    returned_at timestamptz,
    seconds     double precision NOT NULL DEFAULT 0,  -- that it worked on its last items
    paced       integer NOT NULL DEFAULT 0,    -- those items
    PRIMARY KEY (client_id, service_id),
    CONSTRAINT membership_inactive_is_known CHECK (inactive IN ('idle', 'admin')),
    CONSTRAINT membership_health_is_known CHECK (health IN ('ok', 'watched', 'flagged')),
    CONSTRAINT membership_health_has_a_reason CHECK ((health = 'ok') = (health_reason IS NULL))
) WITH (fillfactor = 70);
CREATE INDEX membership_idle ON membership (service_id, last_access) WHERE joined AND inactive IS NULL;
CREATE INDEX membership_unwell ON membership (service_id, health) WHERE health <> 'ok';

-- Memberships whose clients may work.
CREATE VIEW working_membership AS
SELECT m.client_id, m.service_id, m.health, m.wait_until, m.report_until
  FROM membership m JOIN client c USING (client_id)
 WHERE m.joined AND m.inactive IS NULL AND c.registered AND c.deactivated IS NULL;

-- Those that may be served now: the rule of every claim.
CREATE VIEW servable_membership AS
SELECT client_id, service_id FROM working_membership
 WHERE (wait_until IS NULL OR wait_until <= now()) AND (report_until IS NULL OR report_until <= now());

-- Each client's sums over its services; `idle` if it is inactive in all that it joined, `health` the worst, 1 to 3.
-- Costs a scan of all memberships.
CREATE VIEW membership_total AS
SELECT client_id, sum(settled)::bigint AS settled, sum(given_back)::bigint AS given_back, sum(dead)::bigint AS dead,
       max(last_access) AS last_access,
       coalesce(bool_and(inactive IS NOT NULL) FILTER (WHERE joined), false) AS idle,
       max(CASE health WHEN 'flagged' THEN 3 WHEN 'watched' THEN 2 ELSE 1 END) AS health
  FROM membership GROUP BY client_id;

-- A client's state in one word.
CREATE FUNCTION client_state(deactivated text, registered boolean, idle boolean) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN deactivated IS NOT NULL THEN 'deactivated' WHEN NOT registered THEN 'unregistered'
            WHEN idle THEN 'inactive' ELSE 'active' END;

-- Clients with their sums and their state.  Costs a look into an index for each client, not for all at once: OFFSET 0
-- keeps it so.
CREATE VIEW client_total AS
SELECT c.client_id, c.screen_name, c.registered, c.deactivated, coalesce(s.settled, 0) AS settled,
       coalesce(s.given_back, 0) AS given_back, coalesce(s.dead, 0) AS dead, s.last_access,
       coalesce(s.idle, false) AS idle, coalesce(s.health, 1) AS health,
       client_state(c.deactivated, c.registered, coalesce(s.idle, false)) AS state
  FROM client c
  LEFT JOIN LATERAL (SELECT * FROM membership_total t WHERE t.client_id = c.client_id OFFSET 0) s ON true;

-- A bucket that a client gave back is not offered to it again until then.
CREATE TABLE return_block (
    client_id   text NOT NULL,
    bucket_id   uuid NOT NULL,
    times       integer NOT NULL,
    until       timestamptz NOT NULL,
    PRIMARY KEY (client_id, bucket_id)
);

-- How often a client gave which kind of result in the last hours, by the hour, since what is to be checked changes.
CREATE TABLE client_label (
    service_id  integer NOT NULL,
    hour        timestamptz NOT NULL,
    client_id   text NOT NULL,
    label       text NOT NULL,
    n           integer NOT NULL,
    PRIMARY KEY (service_id, hour, client_id, label)
);

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


-- The ways back --------------------------------------------------------------------------------------------------------

-- Take out of these ready buckets the items that stand in a second open bucket, or were settled there: those items, or
-- all (null).  The other copy goes on alone; a bucket that is empty by that is done.
-- Costs two statements, which look up each bucket, and its items in `twin`.
CREATE FUNCTION leave_twins(bucket_ids uuid[], item_ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    ready_ids   uuid[];
BEGIN
    ready_ids := ARRAY (SELECT bucket_id FROM bucket WHERE bucket_id = ANY (bucket_ids) AND state = 'ready'
                         ORDER BY bucket_id FOR UPDATE);
    WITH gone AS (
        DELETE FROM twin t
         USING bucket b JOIN bucket_items c USING (bucket_id)
         WHERE b.bucket_id = ANY (ready_ids) AND b.bucket_id IN (t.first_id, t.second_id)
           AND (item_ids IS NULL OR t.item_id = ANY (item_ids))
           -- What was settled here is remembered until the other copy is back: its result is to be discarded.
           AND get_bit(b.settled, array_position(c.items, t.item_id) - 1) = 0
        RETURNING b.bucket_id, t.item_id),
    bits AS (
        SELECT c.bucket_id,
               string_agg(CASE WHEN g.item_id IS NULL THEN '0' ELSE '1' END, '' ORDER BY i.n)::varbit AS gone
          FROM bucket_items c
          CROSS JOIN LATERAL unnest(c.items) WITH ORDINALITY AS i (item_id, n)
          LEFT JOIN gone g ON g.bucket_id = c.bucket_id AND g.item_id = i.item_id
         WHERE c.bucket_id IN (SELECT bucket_id FROM gone) GROUP BY c.bucket_id)
    UPDATE bucket b
       SET settled = b.settled | s.gone,
           state = CASE WHEN all_settled(b.settled | s.gone) THEN 'done' ELSE b.state END,
           split_at = CASE WHEN NOT all_settled(b.settled | s.gone) THEN b.split_at END
      FROM bits s WHERE b.bucket_id = s.bucket_id;
END $$;

CREATE TYPE freed_bucket AS (
    service_id  integer,
    bucket_id   uuid,
    claim_id    bigint,                        -- the claim that has ended
    client_id   text,                          -- whose it was
    session_id  uuid,
    remaining   integer                        -- items
);

-- Free buckets that are held: they become ready, with their rank and their settled items, and their claims end.  A
-- failed attempt counts, and at the third one the bucket is set aside to be cut up, once nobody can recollect it any
-- more.  A bucket that never reached its client costs it nothing.  What stands in a second bucket too is left to that.
--
-- What giving back costs a client: that bucket is not offered to it for 30 s, doubling to 1 h; from the second time in a
-- row on, it waits 1 s, doubling to 5 min.
--
-- Costs what its statement costs, which is planned once for each connection, and one look at each bucket.
CREATE FUNCTION free_buckets(
    held_ids        uuid[],                    -- which the caller has locked, in order
    end_reason      text,                      -- for claim.ended
    failed_attempts integer,                   -- 1 if it counts as a failed attempt, 0 if not
    paid_counter    text,                      -- given_back, disconnects or dead: what the client pays; '': nothing
    recollect_window double precision,         -- seconds
    delivered_ids   uuid[] DEFAULT NULL        -- those that reached their clients; null: all
) RETURNS SETOF freed_bucket LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    WITH held AS MATERIALIZED (
        SELECT bucket_id, client_id, session_id, delivered_ids IS NULL OR bucket_id = ANY (delivered_ids) AS delivered
          FROM bucket WHERE bucket_id = ANY (held_ids)),
    freed AS (
        UPDATE bucket b
           SET state = 'ready', client_id = NULL, session_id = NULL, boot = NULL, touched_at = NULL,
               kept_until = NULL, shuffle = gen_random_uuid(),
               attempts = b.attempts + CASE WHEN h.delivered THEN failed_attempts ELSE 0 END,
               split_at = CASE WHEN h.delivered AND failed_attempts > 0 AND attempts_spent(b.attempts + failed_attempts)
                               THEN now() + make_interval(secs => recollect_window) END
          FROM held h WHERE b.bucket_id = h.bucket_id
        RETURNING b.service_id, b.bucket_id, b.claim_id, h.client_id, h.session_id, h.delivered,
                  items_left(b.settled) AS remaining),
    ended AS (
        UPDATE claim c SET ended_at = now(), ended = CASE WHEN f.delivered THEN end_reason ELSE 'undelivered' END
          FROM freed f WHERE c.claim_id = f.claim_id),
    blocked AS (
        INSERT INTO return_block AS g (client_id, bucket_id, times, until)
        SELECT client_id, bucket_id, 1, now() + interval '30 seconds' FROM freed
         WHERE delivered AND paid_counter IN ('given_back', 'disconnects')
        ON CONFLICT (client_id, bucket_id) DO UPDATE
           SET times = g.times + 1,
               until = now() + make_interval(secs => least(30 * 2 ^ least(g.times, 10), 3600))),
    payers AS MATERIALIZED (
        SELECT client_id, service_id FROM membership
         WHERE paid_counter <> ''
           AND (client_id, service_id) IN (SELECT client_id, service_id FROM freed WHERE delivered)
         ORDER BY client_id, service_id FOR NO KEY UPDATE),
    counted AS (
        UPDATE membership m
           SET streak = m.streak + CASE WHEN paid_counter = 'dead' THEN 0 ELSE 1 END,
               wait_until = CASE WHEN paid_counter <> 'dead' AND m.streak >= 1
                                 THEN now() + make_interval(secs => least(2 ^ least(m.streak - 1, 10), 300))
                                 ELSE m.wait_until END,
               given_back = m.given_back + CASE WHEN paid_counter = 'given_back' THEN f.n ELSE 0 END,
               disconnects = m.disconnects + CASE WHEN paid_counter = 'disconnects' THEN 1 ELSE 0 END,
               dead = m.dead + CASE WHEN paid_counter = 'dead' THEN f.n ELSE 0 END,
               -- For its health, what goes back within a second goes back once: a client that stops returns all it has.
               returned = m.returned + CASE WHEN paid_counter = 'dead' OR m.returned_at > now() - interval '1 second'
                                            THEN 0 ELSE 1 END,
               returned_at = CASE WHEN paid_counter = 'dead' THEN m.returned_at ELSE now() END,
               well = 0
          FROM (SELECT client_id, service_id, count(*) AS n FROM freed JOIN payers USING (client_id, service_id)
                 WHERE delivered GROUP BY 1, 2) f
         WHERE m.client_id = f.client_id AND m.service_id = f.service_id)
    SELECT service_id, bucket_id, claim_id, client_id, session_id, remaining FROM freed;

    -- In the same transaction: nobody may claim an item in between that stands in a second bucket.
    IF EXISTS (SELECT FROM bucket WHERE bucket_id = ANY (held_ids) AND twins) THEN
        PERFORM leave_twins(held_ids, NULL);
    END IF;
END $$;


-- Nodes, tokens, and what admins did ---------------------------------------------------------------------------------

-- One start of a node.
--
--   live ──drain──> draining ──its end──> gone;  live, draining ──its lease runs out, its name starts anew──> gone
CREATE TABLE node (
    boot        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL,
    state       text NOT NULL DEFAULT 'live',
    version     text NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    lease_until timestamptz NOT NULL,
    load        jsonb NOT NULL DEFAULT '{}',   -- told with each renewal of its lease
    CONSTRAINT node_state_is_known CHECK (state IN ('live', 'draining', 'gone'))
);
CREATE INDEX node_here ON node (lease_until) WHERE state <> 'gone';

-- Sessions that are connected now.
CREATE VIEW open_session AS
SELECT s.session_id, s.client_id, s.boot FROM session s JOIN node n USING (boot)
 WHERE s.ended_at IS NULL AND n.state <> 'gone';

CREATE TABLE token (
    token_id    text PRIMARY KEY,
    hash        bytea NOT NULL UNIQUE,
    role        text NOT NULL,
    label       text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz,
    uses_left   integer,                       -- null: any number
    revoked_at  timestamptz,
    CONSTRAINT token_role_is_known CHECK (role IN ('admin', 'operator', 'viewer', 'enrolment')),
    CONSTRAINT token_uses_are_counted CHECK (uses_left >= 0)
);

CREATE SEQUENCE activity_number;

-- By months, so that what is old goes by dropping a table.
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


-- Statistics ---------------------------------------------------------------------------------------------------------

-- How many items a service has, how many of them wait and how many are quarantined: what is folded here, plus what
-- has changed since.  Kept by triggers, so it is exact whoever changes those tables.
CREATE TABLE service_count (
    service_id  integer NOT NULL,
    what        text NOT NULL,
    number      bigint NOT NULL,
    PRIMARY KEY (service_id, what),
    CONSTRAINT service_count_what_is_known CHECK (what IN ('joined', 'waiting', 'quarantined'))
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

-- What was done in each second (kept for minutes), minute (for days) and hour (for ever) that had anything.  Each node
-- adds its own counts.
CREATE TABLE history (
    step        text NOT NULL,
    at          timestamptz NOT NULL,          -- when it began
    service_id  integer NOT NULL,
    settled     bigint NOT NULL DEFAULT 0,     -- items
    submits     bigint NOT NULL DEFAULT 0,     -- that were stored
    given_back  bigint NOT NULL DEFAULT 0,
    dead        bigint NOT NULL DEFAULT 0,
    disconnects bigint NOT NULL DEFAULT 0,
    bad_submits bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (step, at, service_id),
    CONSTRAINT history_step_is_known CHECK (step IN ('second', 'minute', 'hour'))
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
