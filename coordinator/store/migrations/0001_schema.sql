-- The schema.  Postgres 14 to 18.
--
-- Lock order everywhere: bucket rows by bucket_id, then item ids ascending, then enrolment by service and block, then
-- membership, then newcomer_block.
-- Whoever moves items between `waiting` and buckets holds the builder's lock of that service (an advisory lock).
-- `result` may be distributed by item_id (Citus): every key of it contains item_id, no foreign key leaves it, and nothing
-- reads it but the functions beside it, which name no other table.
--
-- What several statements share is a view or a function.  A view, and a function of one expression, is put into the
-- statement that names it: it costs what its text costs.  Beside the others stands what they cost.
--
-- Whoever calls a function, with whatever search path, means these tables: what is written in SQL is bound to them when it
-- is made, and what is written in plpgsql looks for them where this file puts them, and among temporary tables last.
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);


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

-- How keys are compared: one row, chosen when the database is made and never changed.
CREATE TABLE key_form (
    form        text NOT NULL,
    CONSTRAINT key_form_is_known CHECK (form IN ('handle', 'exact'))
);
CREATE UNIQUE INDEX key_form_is_one ON key_form ((true));
INSERT INTO key_form VALUES ('handle');

-- The catalogue: one row whatever the number of services.  An item is found by its canonical key, which is not
-- written twice where it is the key itself.
CREATE TABLE item (
    item_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key         text COLLATE "C" NOT NULL,     -- as it was first written
    canonical   text COLLATE "C",              -- by which it is compared, if that is another text: keys.read_key
    attributes  jsonb NOT NULL DEFAULT '{}',
    added_at    timestamptz NOT NULL DEFAULT now(),
    found_with  bigint,                        -- the item whose result showed it, if nobody added it
    found_by    bigint,                        -- the claim of that result
    CONSTRAINT item_key_has_a_length CHECK (length(key) BETWEEN 1 AND 256)
);
CREATE UNIQUE INDEX item_canonical ON item (coalesce(canonical, key));

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

-- No row for each item but in the catalogue and among the results: what else is known of items stands in rows for blocks
-- of 1,024 ids, so that adding, making and vacuum cost a fraction of what a row an item costs.

CREATE FUNCTION item_block(item_id bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN item_id >> 10;

CREATE FUNCTION item_offset(item_id bigint) RETURNS smallint LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (item_id & 1023)::smallint;

CREATE FUNCTION item_at(block bigint, item_offset integer) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (block << 10) + item_offset;

CREATE FUNCTION item_blocks(item_ids bigint[]) RETURNS bigint[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY (SELECT DISTINCT item_block(i) FROM unnest(item_ids) AS i);

-- Which items a service has, and that nothing joins twice: of each block a bit an item.
-- An item of a service is in exactly one of: waiting, an open bucket, quarantine; else it is settled.
CREATE TABLE enrolment (
    service_id  integer NOT NULL REFERENCES service,
    block       bigint NOT NULL,
    members     bit(1024) NOT NULL,
    items       integer GENERATED ALWAYS AS (bit_count(members)) STORED,
    PRIMARY KEY (service_id, block)
) WITH (fillfactor = 50);

CREATE VIEW enrolled_item AS
SELECT e.service_id, item_at(e.block, n) AS item_id
  FROM enrolment e CROSS JOIN generate_series(0, 1023) AS n WHERE get_bit(e.members, n) = 1;

-- Items that wait for a bucket: those of one block, rank, priority and age are one row.  It is inserted by whoever adds
-- items, and changed by those alone who hold the builder's lock.
CREATE TABLE waiting (
    service_id  integer NOT NULL,
    block       bigint NOT NULL,
    rank_at     timestamptz NOT NULL,          -- since − head start; computed once, never changed
    since       timestamptz NOT NULL,
    priority    smallint NOT NULL,
    offsets     smallint[] NOT NULL,           -- of its items, ascending
    items       integer GENERATED ALWAYS AS (cardinality(offsets)) STORED,
    PRIMARY KEY (service_id, block, rank_at, since, priority),
    CONSTRAINT waiting_priority_is_in_bounds CHECK (priority BETWEEN 0 AND 200),
    CONSTRAINT waiting_has_items CHECK (items > 0)
) WITH (toast_tuple_target = 4080);            -- a full block stays in its row: it is written once and read once
CREATE INDEX waiting_rank ON waiting (service_id, rank_at, block);
-- The oldest of each priority, however many of another one wait before it.
CREATE INDEX waiting_priority ON waiting (service_id, priority, rank_at, block);

CREATE VIEW waiting_item AS
SELECT w.service_id, w.block, item_at(w.block, o) AS item_id, w.rank_at, w.since, w.priority
  FROM waiting w CROSS JOIN unnest(w.offsets) AS o;

-- Let items of a service wait.  None of them may be waiting already, which is the caller's to know.
CREATE FUNCTION put_waiting(
    of_service integer, item_ids bigint[], with_rank timestamptz, waits_since timestamptz, with_priority integer
) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO waiting AS w (service_id, block, rank_at, since, priority, offsets)
    SELECT of_service, item_block(i), with_rank, waits_since, with_priority, array_agg(item_offset(i) ORDER BY i)
      FROM unnest(item_ids) AS i GROUP BY item_block(i) ORDER BY item_block(i)
    ON CONFLICT (service_id, block, rank_at, since, priority) DO UPDATE
       SET offsets = ARRAY (SELECT o FROM unnest(w.offsets || excluded.offsets) AS o ORDER BY o);
END $$;

-- Take these items out of the queue of a service, and tell those that waited.  Called with the builder's lock.
CREATE FUNCTION take_waiting(of_service integer, item_ids bigint[]) RETURNS TABLE (item_id bigint, since timestamptz)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH asked AS MATERIALIZED (
        SELECT DISTINCT item_block(i) AS block, item_offset(i) AS item_offset FROM unnest(item_ids) AS i),
    places AS MATERIALIZED (
        SELECT w.ctid AS place, w.block, w.since, o AS item_offset, a.block IS NOT NULL AS taken
          FROM waiting w
         CROSS JOIN LATERAL unnest(w.offsets) AS o
          LEFT JOIN asked a ON a.block = w.block AND a.item_offset = o
         WHERE w.service_id = of_service AND w.block = ANY (ARRAY (SELECT DISTINCT block FROM asked))),
    rest AS MATERIALIZED (
        SELECT place, array_agg(item_offset ORDER BY item_offset) FILTER (WHERE NOT taken) AS offsets
          FROM places GROUP BY place HAVING bool_or(taken)),
    emptied AS (
        DELETE FROM waiting WHERE ctid = ANY (ARRAY (SELECT place FROM rest WHERE offsets IS NULL))),
    reduced AS (
        UPDATE waiting w SET offsets = r.offsets FROM rest r WHERE w.ctid = r.place AND r.offsets IS NOT NULL)
    SELECT item_at(block, item_offset), since FROM places WHERE taken;
END $$;

-- The front of a queue, from a rank and block on: rows in rank order until they hold so many items.  Rows of one rank
-- and block are never torn apart.  `before` counts the items in the rows before.
CREATE FUNCTION waiting_front(of_service integer, from_rank timestamptz, from_block bigint, most integer)
RETURNS TABLE (
    place tid, block bigint, rank_at timestamptz, since timestamptz, priority smallint, offsets smallint[], before integer
) LANGUAGE plpgsql STABLE ROWS 50 SET search_path FROM CURRENT AS $$
DECLARE
    next_row    record;
BEGIN
    before := 0;
    FOR next_row IN
        SELECT w.ctid AS place, w.block, w.rank_at, w.since, w.priority, w.offsets FROM waiting w
         WHERE w.service_id = of_service AND (w.rank_at, w.block) >= (from_rank, from_block)
         ORDER BY w.rank_at, w.block
    LOOP
        EXIT WHEN before >= most AND (next_row.rank_at, next_row.block) <> (rank_at, block);
        before := before + coalesce(cardinality(offsets), 0);
        place := next_row.place;
        block := next_row.block;
        rank_at := next_row.rank_at;
        since := next_row.since;
        priority := next_row.priority;
        offsets := next_row.offsets;
        RETURN NEXT;
    END LOOP;
END $$;

-- Let items join a service; returns those that had not.  Whoever adds a block that another transaction is adding waits
-- for that one, and sees its items.
CREATE FUNCTION enrol(of_service integer, item_ids bigint[]) RETURNS bigint[]
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    joined      bigint[];
BEGIN
    INSERT INTO enrolment (service_id, block, members)
    SELECT of_service, b.block, 0::bit(1024)
      FROM (SELECT DISTINCT item_block(i) AS block FROM unnest(item_ids) AS i) b ORDER BY b.block
    ON CONFLICT DO NOTHING;

    WITH asked AS MATERIALIZED (
        SELECT item_block(i) AS block, bit_or(set_bit(0::bit(1024), item_offset(i), 1)) AS members
          FROM unnest(item_ids) AS i GROUP BY 1),
    present AS MATERIALIZED (
        SELECT e.block, e.members FROM enrolment e
         WHERE e.service_id = of_service AND e.block = ANY (ARRAY (SELECT block FROM asked))
         ORDER BY e.block FOR NO KEY UPDATE),
    added AS (
        UPDATE enrolment e SET members = p.members | a.members
          FROM present p JOIN asked a USING (block)
         WHERE e.service_id = of_service AND e.block = p.block AND p.members | a.members <> p.members)
    SELECT array_agg(i ORDER BY i) INTO joined
      FROM unnest(item_ids) AS i JOIN present p ON p.block = item_block(i)
     WHERE get_bit(p.members, item_offset(i)) = 0;
    RETURN coalesce(joined, '{}');
END $$;

-- Single items that failed too often, until an admin decides.
CREATE TABLE quarantine (
    service_id  integer NOT NULL,
    item_id     bigint NOT NULL,
    attempts    integer NOT NULL,
    since       timestamptz NOT NULL DEFAULT now(),
    bucket_id   uuid,                          -- the bucket in which it stood alone, and failed
    items       integer GENERATED ALWAYS AS (1) STORED,  -- for the count of what changed
    PRIMARY KEY (service_id, item_id)
);


-- Buckets ----------------------------------------------------------------------------------------------------------

-- Whether every item of a bucket is settled; takes bucket.settled.
CREATE FUNCTION all_settled(bits bit varying) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN bit_count(bits) = length(bits);

-- Whether a bucket has failed so often that it is cut up; takes the number of its claims with claim.spent.
-- protocol.md, "Give-backs"
CREATE FUNCTION attempts_spent(attempts bigint) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN attempts >= 3;

-- How many items of a bucket are still to be settled; takes bucket.settled.
CREATE FUNCTION items_left(bits bit varying) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN length(bits) - bit_count(bits)::integer;

CREATE SEQUENCE claim_number;

-- Small hot rows, one for ~180 items.
--
--   ready ──claim──> claimed ──submit──> done
--   claimed ──dead_after──> dead ──submit──> claimed | done;  dead ──release_after──> ready
--   claimed ──disconnect, release, final submit with items left──> ready;  claimed, dead ──max_claim_time──> ready
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
    attempts    integer NOT NULL DEFAULT 0,    -- that failed, at whatever clients
    claim_id    bigint NOT NULL DEFAULT 0,     -- the newest claim; 0 before the first
    client_id   text,                          -- who holds it, while claimed or dead
    session_id  uuid,                          -- null while it is kept for a client whose node drained
    boot        bigint,
    touched_at  timestamptz,                   -- claimed, last settled an item, or marked dead, then
    kept_until  timestamptz,
    split_at    timestamptz,                   -- broke too many clients: is cut up then, not handed out whole
    split_from  uuid,                          -- the bucket that this one is a part of, if that was cut up
    twins       boolean NOT NULL DEFAULT false,  -- some of its items stand in a second open bucket (see twin)
    indexed     boolean NOT NULL DEFAULT true,   -- whether it may still stand in open_bucket
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

-- What a bucket is of; never changed.
CREATE TABLE bucket_items (
    bucket_id   uuid PRIMARY KEY,
    items       bigint[] NOT NULL              -- bit n of bucket.settled is items[n + 1]
);

-- What is needed only until a bucket is done; gone some time after that.
CREATE TABLE open_bucket (
    bucket_id   uuid PRIMARY KEY,
    blocks      bigint[] NOT NULL,             -- in which its items are, and perhaps others
    frame       text NOT NULL                  -- its items as the JSON array that a client is sent
);
-- Frames are written once and read once, soon: compressing them costs more than it saves.  (CREATE TABLE can say it
-- from version 16 on.)
ALTER TABLE open_bucket ALTER COLUMN frame SET STORAGE EXTERNAL;
-- Which open buckets may hold an item, without a scan.  It is known at once: entries that are put aside to be sorted in
-- later make one run in ten wait for all of them, and each look-up reads through them.
CREATE INDEX open_bucket_blocks ON open_bucket USING gin (blocks) WITH (fastupdate = off);

-- Where these items stand in open buckets, settled or not.  Costs a look at each open bucket that shares a block with
-- them, about a hundred; with many items they are hashed, since comparing each with each would cost more.  (Within CASE:
-- a condition of its own becomes a join, which the planner may well do by comparing.)
CREATE FUNCTION open_places(item_ids bigint[]) RETURNS TABLE (bucket_id uuid, item_id bigint, place integer)
LANGUAGE sql STABLE
BEGIN ATOMIC
SELECT i.bucket_id, n.item_id, n.place::integer
  FROM open_bucket o
  JOIN bucket_items i USING (bucket_id)
 CROSS JOIN LATERAL unnest(i.items) WITH ORDINALITY AS n (item_id, place)
 WHERE o.blocks && item_blocks(item_ids)
   AND (cardinality(item_ids) > 8 OR i.items && item_ids)
   AND CASE WHEN cardinality(item_ids) > 8 THEN n.item_id IN (SELECT unnest(item_ids))
            ELSE n.item_id = ANY (item_ids) END;
END;

-- Of these items, those that the service has and that are settled: they neither wait, nor stand in an open bucket, nor
-- are in quarantine.
CREATE FUNCTION settled_items(of_service integer, item_ids bigint[]) RETURNS bigint[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
BEGIN
    RETURN ARRAY (
        SELECT i.item_id FROM unnest(item_ids) AS i (item_id)
          JOIN enrolment e ON e.service_id = of_service AND e.block = item_block(i.item_id)
         WHERE get_bit(e.members, item_offset(i.item_id)) = 1
           AND NOT EXISTS (SELECT FROM quarantine q WHERE q.service_id = of_service AND q.item_id = i.item_id)
           AND i.item_id NOT IN (SELECT w.item_id FROM waiting_item w
                                  WHERE w.service_id = of_service AND w.block = ANY (item_blocks(item_ids)))
           AND i.item_id NOT IN (SELECT p.item_id FROM open_places(item_ids) p JOIN bucket b USING (bucket_id)
                                  WHERE b.service_id = of_service AND b.state <> 'done'
                                    AND get_bit(b.settled, p.place - 1) = 0));
END $$;

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
    spent       boolean NOT NULL DEFAULT false,  -- it failed, and is one of the attempts after which a bucket is cut up
    block_paid  boolean NOT NULL DEFAULT false,  -- its end was counted in newcomer_block
    CONSTRAINT claim_ended_is_known CHECK (ended IN ('settled', 'partial', 'released', 'cut_off', 'dead', 'drained',
                                                     'crashed', 'undelivered', 'recollected', 'revoked',
                                                     'deactivated', 'left', 'unregistered', 'taken', 'expired')),
    CONSTRAINT claim_ends_at_a_time CHECK ((ended IS NULL) = (ended_at IS NULL))
) WITH (fillfactor = 80);
CREATE INDEX claim_bucket ON claim (bucket_id, claim_id);
CREATE INDEX claim_client ON claim (client_id, claim_id);
CREATE INDEX claim_begun ON claim (service_id, begun_at);   -- for budgets
CREATE INDEX claim_due ON claim (service_id, ended_at) WHERE settled > 0 AND NOT rechecked;
CREATE INDEX claim_invalidated ON claim (invalidated_by, claim_id) WHERE invalidated_by IS NOT NULL;
ALTER SEQUENCE claim_number OWNED BY claim.claim_id;

-- Insert only.  Valid when its claim is; the newest valid one is the current one.
CREATE TABLE result (
    item_id     bigint NOT NULL,
    claim_id    bigint NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    service_id  integer NOT NULL,              -- behind those of eight bytes, where it needs no filling
    value       jsonb NOT NULL,
    PRIMARY KEY (item_id, claim_id)            -- a claim is of one service
);
-- Results arrive nearly in the order of their claims, so block ranges are enough to find those of a claim.  It is of an
-- expression, so that no statistics, however old, make a plan go through all of the primary key instead.
CREATE INDEX result_claim ON result USING brin ((claim_id + 0)) WITH (pages_per_range = 16, autosummarize = on);

-- All that reads results, or deletes them.  Where they are distributed, they cannot be joined with tables that are not,
-- and a plan for whatever values, which is what connections prefer, cannot be carried out: so each of these is a statement
-- of its own, planned for its values.  (They return no SETOF result: of that the table would depend, for Citus.)

-- Of these items, those of one claim.  Costs an index scan for each item.
CREATE FUNCTION results_of_claim(item_ids bigint[], of_claim bigint) RETURNS TABLE (
    item_id bigint, claim_id bigint, at timestamptz, service_id integer, value jsonb
) LANGUAGE plpgsql STABLE ROWS 200 SET search_path FROM CURRENT SET plan_cache_mode = auto AS $$
BEGIN
    RETURN QUERY SELECT r.item_id, r.claim_id, r.at, r.service_id, r.value
                   FROM result r WHERE r.item_id = ANY (item_ids) AND r.claim_id = of_claim;
END $$;

-- Of these items, all that came later than a claim.  Costs an index scan for each item.
CREATE FUNCTION results_of_items(item_ids bigint[], after_claim bigint) RETURNS TABLE (
    item_id bigint, claim_id bigint, at timestamptz, service_id integer, value jsonb
) LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET plan_cache_mode = auto AS $$
BEGIN
    RETURN QUERY SELECT r.item_id, r.claim_id, r.at, r.service_id, r.value
                   FROM result r WHERE r.item_id = ANY (item_ids) AND r.claim_id > after_claim;
END $$;

-- All that came through these claims.  Costs a look at all that came between the first and the last of them.
CREATE FUNCTION results_of_claims(claim_ids bigint[]) RETURNS TABLE (
    item_id bigint, claim_id bigint, at timestamptz, service_id integer, value jsonb
) LANGUAGE plpgsql STABLE ROWS 5000 SET search_path FROM CURRENT SET plan_cache_mode = auto AS $$
DECLARE
    first_claim bigint := (SELECT min(c) FROM unnest(claim_ids) AS c);
    last_claim  bigint := (SELECT max(c) FROM unnest(claim_ids) AS c);
BEGIN
    RETURN QUERY SELECT r.item_id, r.claim_id, r.at, r.service_id, r.value
                   FROM result r
                  WHERE r.claim_id + 0 BETWEEN first_claim AND last_claim AND r.claim_id + 0 = ANY (claim_ids);
END $$;

-- Delete all of these items; of which service each was.  Costs an index scan for each item.
CREATE FUNCTION delete_results(item_ids bigint[]) RETURNS TABLE (service_id integer, item_id bigint)
LANGUAGE plpgsql SET search_path FROM CURRENT SET plan_cache_mode = auto AS $$
BEGIN
    RETURN QUERY DELETE FROM result r WHERE r.item_id = ANY (item_ids) RETURNING r.service_id, r.item_id;
END $$;

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

-- Changes of results that nobody has read yet, in the order in which they were made, whatever was committed first.
-- `stored`, `invalidated`, `reinstated`: all results of the claim, or, where `partial`, those that came at that time;
-- `deleted`: those of these items.
CREATE TABLE new_change (
    change_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    service_id  integer NOT NULL,
    kind        text NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    claim_id    bigint,
    items       bigint[],
    partial     boolean NOT NULL DEFAULT false,
    CONSTRAINT new_change_kind_is_known CHECK (kind IN ('stored', 'invalidated', 'reinstated', 'deleted')),
    CONSTRAINT new_change_is_of_a_claim_or_of_items CHECK ((kind = 'deleted') = (claim_id IS NULL)
                                                           AND (kind = 'deleted') = (items IS NOT NULL))
);

-- Changes of results in the order in which they are read.  Only what is committed comes here, and only one transaction at
-- a time brings it: so nothing that is committed later ever stands before what is here.
CREATE TABLE change (
    position    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    service_id  integer NOT NULL,
    kind        text NOT NULL,
    at          timestamptz NOT NULL,
    claim_id    bigint,
    items       bigint[],
    partial     boolean NOT NULL               -- until those of a claim are put together, some time after its end
);
CREATE INDEX change_service ON change (service_id, position);
CREATE INDEX change_partial ON change (claim_id, position) WHERE partial;

-- The beginning, and the end, of a result with its origin, in JSON: what all results of a claim share.
CREATE FUNCTION origin_json(client_id text, session_id uuid, bucket_id uuid, claim_id bigint) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN ',"client_id":' || to_json(client_id) || ',"session_id":"' || session_id || '","bucket_id":"' || bucket_id
    || '","claim":' || claim_id || ',"at":"';

-- A time in JSON, without its quotes.
CREATE FUNCTION json_time(at timestamptz) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US') || 'Z';

-- Claims through which valid results came, of that client and service and within that time (null: any).  A claim is
-- meant if one of its results is, and then all of them.  Only for claims that begin or end outside of the time does it
-- matter when each result came.  Put into the statement, as a view is; the look at the results of a claim costs an index
-- scan for each of its items.
CREATE FUNCTION valid_claims(of_client text, of_service integer, from_time timestamptz, to_time timestamptz)
RETURNS TABLE (claim_id bigint, bucket_id uuid, settled integer, ended_at timestamptz) LANGUAGE sql STABLE
BEGIN ATOMIC
SELECT c.claim_id, c.bucket_id, c.settled, c.ended_at FROM claim c
 WHERE c.invalidated_by IS NULL AND (c.settled > 0 OR c.parts > 0)
   AND (of_client IS NULL OR c.client_id = of_client) AND (of_service IS NULL OR c.service_id = of_service)
   AND (from_time IS NULL OR c.ended_at IS NULL OR c.ended_at >= from_time)
   AND (to_time IS NULL OR c.begun_at < to_time)
   AND (((from_time IS NULL OR c.begun_at >= from_time) AND (to_time IS NULL OR c.ended_at < to_time))
        OR EXISTS (SELECT FROM bucket_items i CROSS JOIN LATERAL results_of_claim(i.items, c.claim_id) r
                    WHERE i.bucket_id = c.bucket_id
                      AND (from_time IS NULL OR r.at >= from_time) AND (to_time IS NULL OR r.at < to_time)));
END;


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

-- What stands for those that were erased.
CREATE SEQUENCE erasure_number;

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
    inactive_reason text,                      -- why, in the words of an admin
    profile     jsonb NOT NULL DEFAULT '{}',
    last_access timestamptz NOT NULL DEFAULT now(),
    streak      integer NOT NULL DEFAULT 0,    -- give-backs and cut-offs since it last settled something
    wait_until  timestamptz,                   -- is served nothing before (streak)
    report_until timestamptz,                  -- is served nothing before (its own report)
    report_kind text,                          -- what that report said
    -- What it did in all.
    assigned    bigint NOT NULL DEFAULT 0,     -- buckets
    processed   bigint NOT NULL DEFAULT 0,     -- submits that were stored
    settled     bigint NOT NULL DEFAULT 0,     -- items
    given_back  bigint NOT NULL DEFAULT 0,
    dead        bigint NOT NULL DEFAULT 0,
    disconnects bigint NOT NULL DEFAULT 0,     -- while holding
    bad_submits bigint NOT NULL DEFAULT 0,
    taken_back  bigint NOT NULL DEFAULT 0,     -- of the settled items, those whose results were invalidated since
    -- What the rules of its health found.
    health      text NOT NULL DEFAULT 'ok',
    health_reason text,                        -- in words
    -- What those rules look at.  A run ends when the client settles an item; after some buckets in a row that it
    -- settled whole (well), what died before is forgotten.
    well        integer NOT NULL DEFAULT 0,    -- buckets settled whole in a row, without a fault between
    died        integer NOT NULL DEFAULT 0,    -- buckets that were marked dead
    died_run    integer NOT NULL DEFAULT 0,    -- the same, run
    died_claim  bigint NOT NULL DEFAULT 0,     -- the newest claim of all when the first of that run died
    asked_on    integer NOT NULL DEFAULT 0,    -- buckets taken after one had died, run
    hoarded     integer NOT NULL DEFAULT 0,    -- asks while older buckets lay untouched, run
    refused     integer NOT NULL DEFAULT 0,    -- submits refused in a row
    returned    integer NOT NULL DEFAULT 0,    -- give-backs and cut-offs, run; several at a time are one
    returned_at timestamptz,
    seconds     double precision NOT NULL DEFAULT 0,  -- that it worked on its last items
    paced       integer NOT NULL DEFAULT 0,    -- those items
    PRIMARY KEY (client_id, service_id),
    CONSTRAINT membership_inactive_is_known CHECK (inactive IN ('idle', 'admin')),
    CONSTRAINT membership_report_is_known CHECK (report_kind IN ('upstream_limited', 'cannot_work')),
    CONSTRAINT membership_health_is_known CHECK (health IN ('ok', 'watched', 'flagged')),
    CONSTRAINT membership_health_has_a_reason CHECK ((health = 'ok') = (health_reason IS NULL))
) WITH (fillfactor = 70);
CREATE INDEX membership_idle ON membership (service_id, last_access) WHERE joined AND inactive IS NULL;
CREATE INDEX membership_unwell ON membership (service_id, health) WHERE health <> 'ok';

-- Memberships whose clients may work.  `standing`: the items that a client has settled and that nobody took back.
CREATE VIEW working_membership AS
SELECT m.client_id, m.service_id, m.health, m.wait_until, m.report_until, m.streak,
       m.settled - m.taken_back AS standing
  FROM membership m JOIN client c USING (client_id)
 WHERE m.joined AND m.inactive IS NULL AND c.registered AND c.deactivated IS NULL;

-- Those that may be served now: the rule of every claim.
CREATE VIEW servable_membership AS
SELECT client_id, service_id, health, streak, standing FROM working_membership
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
CREATE INDEX return_block_until ON return_block (until);

-- Messages of operators: to one client, to the members of a service, or, where both are null, to all.  They are in force
-- until they end; one that is withdrawn is deleted.
CREATE TABLE notice (
    notice_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT now(),
    level       text NOT NULL,
    text        text NOT NULL,
    client_id   text REFERENCES client,
    service_id  integer REFERENCES service,
    until       timestamptz,
    CONSTRAINT notice_level_is_known CHECK (level IN ('info', 'warning', 'error')),
    CONSTRAINT notice_text_has_a_length CHECK (length(text) BETWEEN 1 AND 2000)
);
CREATE INDEX notice_client ON notice (client_id) WHERE client_id IS NOT NULL;

-- `seconds`: for how long it still is in force; null: until it is withdrawn.
CREATE VIEW notice_in_force AS
SELECT n.notice_id, n.at, n.level, n.text, n.client_id, n.service_id, s.name AS service, n.until,
       extract(epoch FROM n.until - now())::double precision AS seconds
  FROM notice n LEFT JOIN service s USING (service_id) WHERE n.until IS NULL OR n.until > now();

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
    ended_at    timestamptz,
    waits_for   integer[] NOT NULL DEFAULT '{}'  -- services, as its node tells the other nodes, if there are any
);
CREATE INDEX session_here ON session (client_id) WHERE ended_at IS NULL;
CREATE INDEX session_from ON session (address) WHERE ended_at IS NULL;
CREATE INDEX session_over ON session (ended_at) WHERE ended_at IS NOT NULL;


-- What a client may hold -----------------------------------------------------------------------------------------------

-- How many buckets of a service a client may hold, by its health, its give-backs in a row and its standing there.
-- Newcomers begin with few, and each bucket's worth that they settle doubles it; from the third give-back in a row on each
-- one halves it: so what is read by whoever only reads stays little.
CREATE FUNCTION may_hold(health text, streak integer, standing bigint, bucket_size integer, newcomer_buckets integer,
                         most integer)
RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN health = 'flagged' THEN 1
            ELSE greatest(least(most, newcomer_buckets * 2 ^ least(greatest(standing, 0) / bucket_size, 14))::integer
                          >> least(greatest(streak - 2, 0), 14), 1) END;

-- Until the transaction ends, nobody else gives this client a bucket of that service.  It comes before locks of buckets;
-- whoever takes it for several services does so in their order.  Costs a lock in memory.
CREATE FUNCTION lock_holds(of_client text, of_service integer) RETURNS void LANGUAGE sql VOLATILE
RETURN pg_advisory_xact_lock(hashtextextended(of_client, of_service));

-- How many buckets of a service a client holds, in all its sessions on all nodes, behind that lock; null while somebody
-- else has it.  Of two claims for one client at once, on two nodes, only one can find the last place free: the other one
-- leaves that client out, and whoever else it serves waits for nobody.  Costs a look into the index of holders.
CREATE FUNCTION count_held(of_client text, of_service integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended(of_client, of_service)) THEN   -- that of lock_holds
        RETURN NULL;
    END IF;
    RETURN (SELECT count(*) FROM bucket WHERE client_id = of_client AND service_id = of_service);
END $$;

-- The block of addresses whose newcomers count together; null on loopback, where all programs of one machine are.
CREATE FUNCTION strangers_block(address text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN address ~ '^127\.|^::1$' THEN NULL ELSE address END;

-- What newcomers of one block of addresses gave back in a service, whatever their identities, which cost nothing.
CREATE TABLE newcomer_block (
    block       text NOT NULL,
    service_id  integer NOT NULL,
    streak      integer NOT NULL,              -- buckets, each within an hour of the one before
    last_at     timestamptz NOT NULL,
    wait_until  timestamptz,                   -- no newcomer of that block is served before
    PRIMARY KEY (block, service_id)
);
CREATE INDEX newcomer_block_last ON newcomer_block (last_at);

-- Buckets that newcomers of one block give back before they wait for each other: a class that tries it out does so.
CREATE FUNCTION free_streak_of_block() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 20;

-- How many buckets more the newcomers of one block may hold together in a service: 64 in all, and half as many with
-- each that was given back beyond the free ones, but 2.  Costs a look at each of their sessions.
CREATE FUNCTION newcomers_left(of_block text, of_service integer) RETURNS integer
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    returned    newcomer_block;
BEGIN
    SELECT * INTO returned FROM newcomer_block WHERE block = of_block AND service_id = of_service;
    IF returned.wait_until > now() THEN
        RETURN 0;
    END IF;
    RETURN greatest(64 >> least(greatest(coalesce(returned.streak, 0) - free_streak_of_block(), 0), 5), 2)
           - (SELECT count(*) FROM session s
                JOIN membership m ON m.client_id = s.client_id AND m.service_id = of_service
                JOIN bucket b ON b.client_id = s.client_id AND b.session_id = s.session_id
               WHERE s.address = of_block AND s.ended_at IS NULL AND b.service_id = of_service
                 AND m.settled <= m.taken_back);
END $$;

-- The same for a claim: as with count_held, one at a time looks, and finds none for another one until its transaction
-- ends.
CREATE FUNCTION newcomers_room(of_block text, of_service integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('newcomers of ' || of_block, of_service)) THEN
        RETURN 0;
    END IF;
    RETURN newcomers_left(of_block, of_service);
END $$;


-- Budgets of a service ------------------------------------------------------------------------------------------------

-- How many items of a service were handed out in the last minute, but for those that went back.  Costs a look at each
-- claim of that minute.
CREATE FUNCTION items_of_minute(of_service integer) RETURNS bigint LANGUAGE sql STABLE
RETURN (SELECT coalesce(sum(CASE WHEN ended IS NULL THEN bit_count(given) ELSE settled END), 0)::bigint
          FROM claim WHERE service_id = of_service AND begun_at > now() - interval '1 minute');

-- When that is less than so many again; null if it is now.  Costs the same.
CREATE FUNCTION budget_until(of_service integer, items_a_minute integer) RETURNS timestamptz LANGUAGE sql STABLE
RETURN (SELECT max(begun_at) + interval '1 minute'
          FROM (SELECT begun_at, sum(CASE WHEN ended IS NULL THEN bit_count(given) ELSE settled END)
                                 OVER (ORDER BY begun_at DESC, claim_id DESC) AS items
                  FROM claim WHERE service_id = of_service AND begun_at > now() - interval '1 minute') s
         WHERE items >= items_a_minute);

-- How many items, and buckets, of a service may be handed out now; null: any number.  As with count_held, one claim at a
-- time looks, on whatever node, and finds nothing left for another one until its transaction ends; without a budget,
-- nothing is looked at.
CREATE FUNCTION budget_left(of_service integer, items_a_minute integer, most_claimed integer,
                            OUT items bigint, OUT buckets bigint)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
    IF items_a_minute IS NULL AND most_claimed IS NULL THEN
        RETURN;
    END IF;
    IF NOT pg_try_advisory_xact_lock(hashtextextended('budget', of_service)) THEN
        items := 0;
        buckets := 0;
        RETURN;
    END IF;
    IF items_a_minute IS NOT NULL THEN
        items := items_a_minute - items_of_minute(of_service);
    END IF;
    IF most_claimed IS NOT NULL THEN
        buckets := most_claimed - (SELECT count(*) FROM bucket
                                    WHERE service_id = of_service AND state IN ('claimed', 'dead'));
    END IF;
END $$;


-- The ways back --------------------------------------------------------------------------------------------------------

-- Take out of these ready buckets the items that stand in a second open bucket, or were settled there: those items, or
-- all (null).  The other copy goes on alone; a bucket that is empty by that is done.
-- Costs two statements, which look up each bucket, and its items in `twin`.
CREATE FUNCTION leave_twins(bucket_ids uuid[], item_ids bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
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
-- bucket that never reached its client costs it nothing.  What stands in a second bucket too is left to that.
--
-- What giving back costs a client is the same by whatever way, as often as it pays at all: that bucket is not offered to
-- it for 30 s, doubling to 1 h; from the second time in a row on, it waits 1 s, doubling to 5 min.  Newcomers pay for all
-- of their block of addresses too: after some buckets within the hour, none of them is served for 1 s, doubling to 5 min.
--
-- A failed attempt counts, and three of clients of standing set the bucket aside to be cut up, once nobody can recollect
-- it any more; one client has two of them at most.  Throw-away identities and a single client cannot cut up anything.
--
-- Costs what its statement costs, which is planned once for each connection, and one look at each bucket and at the
-- claims that it had.
CREATE FUNCTION free_buckets(
    held_ids        uuid[],                    -- which the caller has locked, in order
    end_reason      text,                      -- for claim.ended
    failed_attempts integer,                   -- 1 if it counts as a failed attempt, 0 if not
    paid_counter    text,                      -- given_back, disconnects or dead: what the client pays; '': nothing
    recollect_window double precision,         -- seconds
    delivered_ids   uuid[] DEFAULT NULL        -- those that reached their clients; null: all
) RETURNS SETOF freed_bucket LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    RETURN QUERY
    WITH held AS MATERIALIZED (
        SELECT b.bucket_id, b.client_id, b.session_id, d.delivered, k.spent AS spent_before,
               d.delivered AND failed_attempts > 0 AND k.own < 2 AND m.settled > m.taken_back AS spends,
               m.settled <= m.taken_back AS newcomer
          FROM bucket b
         CROSS JOIN LATERAL (
            SELECT delivered_ids IS NULL OR b.bucket_id = ANY (delivered_ids) AS delivered) d
         CROSS JOIN LATERAL (
            SELECT count(*) AS spent, count(*) FILTER (WHERE c.client_id = b.client_id) AS own
              FROM claim c WHERE c.bucket_id = b.bucket_id AND c.spent) k
          LEFT JOIN membership m ON m.client_id = b.client_id AND m.service_id = b.service_id
         WHERE b.bucket_id = ANY (held_ids)),
    freed AS (
        UPDATE bucket b
           SET state = 'ready', client_id = NULL, session_id = NULL, boot = NULL, touched_at = NULL,
               kept_until = NULL, shuffle = gen_random_uuid(),
               attempts = b.attempts + CASE WHEN h.delivered THEN failed_attempts ELSE 0 END,
               split_at = CASE WHEN h.spends AND attempts_spent(h.spent_before + 1)
                               THEN now() + make_interval(secs => recollect_window) END
          FROM held h WHERE b.bucket_id = h.bucket_id
        RETURNING b.service_id, b.bucket_id, b.claim_id, h.client_id, h.session_id, h.delivered, h.spends,
                  h.newcomer, items_left(b.settled) AS remaining),
    ended AS (
        UPDATE claim c
           SET ended_at = now(), ended = CASE WHEN f.delivered THEN end_reason ELSE 'undelivered' END,
               spent = coalesce(f.spends, false),
               block_paid = coalesce(f.newcomer AND f.delivered AND paid_counter <> '', false)
          FROM freed f WHERE c.claim_id = f.claim_id),
    paid AS MATERIALIZED (
        SELECT * FROM freed WHERE delivered AND paid_counter <> ''),
    blocked AS (
        INSERT INTO return_block AS g (client_id, bucket_id, times, until)
        SELECT client_id, bucket_id, 1, now() + interval '30 seconds' FROM paid
        ON CONFLICT (client_id, bucket_id) DO UPDATE
           SET times = g.times + 1,
               until = now() + make_interval(secs => least(30 * 2 ^ least(g.times, 10), 3600))),
    payers AS MATERIALIZED (
        SELECT client_id, service_id FROM membership
         WHERE (client_id, service_id) IN (SELECT client_id, service_id FROM paid)
         ORDER BY client_id, service_id FOR NO KEY UPDATE),
    counted AS (
        UPDATE membership m
           SET streak = m.streak + 1,
               wait_until = CASE WHEN m.streak >= 1
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
          FROM (SELECT client_id, service_id, count(*) AS n FROM paid JOIN payers USING (client_id, service_id)
                 GROUP BY 1, 2) f
         WHERE m.client_id = f.client_id AND m.service_id = f.service_id),
    of_blocks AS (
        INSERT INTO newcomer_block AS n (block, service_id, streak, last_at)
        SELECT strangers_block(s.address), p.service_id, count(*), now() FROM paid p JOIN session s USING (session_id)
         WHERE p.newcomer AND strangers_block(s.address) IS NOT NULL
           AND (SELECT count(*) FROM payers) > 0       -- membership is locked before this table
         GROUP BY 1, 2 ORDER BY 1, 2
        ON CONFLICT (block, service_id) DO UPDATE
           SET streak = CASE WHEN n.last_at > now() - interval '1 hour' THEN n.streak ELSE 0 END + excluded.streak,
               last_at = now(),
               wait_until = CASE WHEN n.last_at > now() - interval '1 hour'
                                      AND n.streak + excluded.streak > free_streak_of_block()
                                 THEN now() + make_interval(secs => least(300,
                                      2 ^ least(n.streak + excluded.streak - free_streak_of_block() - 1, 10))) END)
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
    ended_at    timestamptz,                   -- when it was declared gone
    end_reason  text,
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

-- The sequences whose numbers stand in the first column of an index of their table, each with the last number that it has
-- given and the highest one that stands there; null: none yet.  Costs a look into one index for each of them.
CREATE FUNCTION numbering() RETURNS TABLE (sequence regclass, last bigint, highest bigint)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    numbered    record;
BEGIN
    FOR numbered IN
        SELECT d.objid::regclass AS of_sequence, d.refobjid::regclass AS of_table, a.attname AS of_column
          FROM pg_depend d
          JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
          JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
         WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
           AND s.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'claim_number'::regclass)
           AND EXISTS (SELECT FROM pg_index i WHERE i.indrelid = d.refobjid AND i.indkey[0] = d.refobjsubid)
         ORDER BY s.relname
    LOOP
        sequence := numbered.of_sequence;
        last := pg_sequence_last_value(numbered.of_sequence);
        EXECUTE format('SELECT max(%I) FROM %s', numbered.of_column, numbered.of_table) INTO highest;
        RETURN NEXT;
    END LOOP;
END $$;

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
-- It runs with the rights of whoever migrates, since it alone changes the schema while nodes run: a node needs no right
-- to do so, only to call this.
CREATE FUNCTION activity_keep(days integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '1s' SET search_path FROM CURRENT AS $$
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

REVOKE ALL ON FUNCTION activity_keep(integer) FROM PUBLIC;
SELECT activity_keep(400);


-- Time that counts -----------------------------------------------------------------------------------------------------

-- What the server cannot see or do in time is nobody's fault.  Each round of expiry notes that it is there, on whatever
-- node; where it could not for some seconds, since the database was away, no node ran or the clock was set ahead, that is
-- an outage, and its time does not count against those that held something.
CREATE TABLE server_clock (
    only_row    boolean PRIMARY KEY DEFAULT true,
    seen_at     timestamptz NOT NULL,          -- when a round was run last
    CONSTRAINT server_clock_has_one_row CHECK (only_row)
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- The newest thousand.
CREATE TABLE outage (
    ended_at    timestamptz PRIMARY KEY,
    seconds     double precision NOT NULL,     -- that it took
    credit      double precision NOT NULL      -- seconds that do not count for what was held then
);

-- Without a round for so many seconds, time does not count.
CREATE FUNCTION longest_pause() RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 3;

-- Seconds after an outage in which clients come back and repeat what was not answered: they do not count either.
CREATE FUNCTION time_to_repeat() RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 15;

-- The most of an outage that does not count: a week.
CREATE FUNCTION most_credit() RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 604800;

-- The moment since which so many seconds count.  Time counts only as far as rounds were run: what is due at the moment
-- at which an outage ends is not due yet, whoever looks first.  Costs a look at the outages since.
CREATE FUNCTION counted_since(counted double precision) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    since       timestamptz := least(now(), (SELECT seen_at FROM server_clock) + make_interval(secs => longest_pause()))
                               - make_interval(secs => counted);
    missed      outage;
BEGIN
    FOR missed IN SELECT * FROM outage ORDER BY ended_at DESC LOOP
        EXIT WHEN missed.ended_at <= since;
        since := since - make_interval(secs => missed.credit);
    END LOOP;
    RETURN since;
END $$;

-- Whether a lease is over.  Behind an outage its node has the time to renew it first.
CREATE FUNCTION lease_is_over(lease_until timestamptz) RETURNS boolean LANGUAGE sql STABLE
RETURN lease_until < counted_since(0)
       AND NOT EXISTS (SELECT FROM outage WHERE ended_at > now() - make_interval(secs => time_to_repeat()));

-- The clock was set back by so many seconds: what was written by it as it went before, and lies ahead now, moves with it.
-- Costs a scan of the tables of clients.
CREATE FUNCTION set_clock_back(seconds double precision) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    back        interval := make_interval(secs => seconds);
    bucket_ids  uuid[];
BEGIN
    DELETE FROM outage WHERE ended_at > now();
    bucket_ids := ARRAY (
        SELECT bucket_id FROM bucket WHERE bucket_id IN (
            SELECT bucket_id FROM bucket WHERE state IN ('claimed', 'dead') AND touched_at > now()
            UNION ALL SELECT bucket_id FROM bucket WHERE kept_until > now()
            UNION ALL SELECT bucket_id FROM bucket WHERE split_at > now())
         ORDER BY bucket_id FOR UPDATE);
    UPDATE bucket
       SET touched_at = CASE WHEN touched_at > now() THEN touched_at - back ELSE touched_at END,
           kept_until = CASE WHEN kept_until > now() THEN kept_until - back ELSE kept_until END,
           split_at = CASE WHEN split_at > now() THEN split_at - back ELSE split_at END
     WHERE bucket_id = ANY (bucket_ids);

    PERFORM FROM membership WHERE greatest(wait_until, report_until, returned_at, last_access) > now()
      ORDER BY client_id, service_id FOR NO KEY UPDATE;
    UPDATE membership
       SET wait_until = CASE WHEN wait_until > now() THEN wait_until - back ELSE wait_until END,
           report_until = CASE WHEN report_until > now() THEN report_until - back ELSE report_until END,
           returned_at = CASE WHEN returned_at > now() THEN returned_at - back ELSE returned_at END,
           last_access = CASE WHEN last_access > now() THEN last_access - back ELSE last_access END
     WHERE greatest(wait_until, report_until, returned_at, last_access) > now();
    UPDATE newcomer_block SET wait_until = wait_until - back, last_at = least(last_at, now())
     WHERE greatest(wait_until, last_at) > now();

    UPDATE return_block SET until = until - back WHERE until > now();
    UPDATE node SET lease_until = lease_until - back WHERE state <> 'gone' AND lease_until > now();
END $$;

-- Note that a round of expiry is run now, by one node at a time.  Returns the outage that ends with it; one of less than 0
-- seconds if the clock was set back; null if there is nothing to tell.  Costs a small write each second, which waits for
-- no disk.
CREATE FUNCTION note_round() RETURNS outage LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    here        timestamptz := clock_timestamp();
    gap         double precision;
    missed      outage;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('coordinator.server_clock')) THEN
        RETURN NULL;
    END IF;
    gap := extract(epoch FROM here - (SELECT seen_at FROM server_clock));
    IF gap BETWEEN -1 AND 1 THEN
        RETURN NULL;
    END IF;

    PERFORM set_config('synchronous_commit', 'off', true);
    INSERT INTO server_clock (seen_at) VALUES (here) ON CONFLICT (only_row) DO UPDATE SET seen_at = excluded.seen_at;
    IF gap < 0 THEN
        PERFORM set_clock_back(-gap);
        missed := (here, gap, 0);
    ELSIF gap > longest_pause() THEN
        missed := (here, gap, least(gap, most_credit()) + time_to_repeat());
        INSERT INTO outage SELECT missed.*;
        DELETE FROM outage WHERE ended_at <= (SELECT ended_at FROM outage ORDER BY ended_at DESC OFFSET 1000 LIMIT 1);
    END IF;
    RETURN missed;
END $$;


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

-- Called with what is counted: `items` of the rows that changed.
CREATE FUNCTION count_items() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    CASE TG_OP
        WHEN 'INSERT' THEN
            INSERT INTO count_change (service_id, what, number)
            SELECT service_id, TG_ARGV[0], sum(items) FROM added GROUP BY service_id HAVING sum(items) <> 0;
        WHEN 'DELETE' THEN
            INSERT INTO count_change (service_id, what, number)
            SELECT service_id, TG_ARGV[0], -sum(items) FROM gone GROUP BY service_id HAVING sum(items) <> 0;
        ELSE
            INSERT INTO count_change (service_id, what, number)
            SELECT service_id, TG_ARGV[0], sum(items)
              FROM (SELECT service_id, items FROM added UNION ALL SELECT service_id, -items FROM gone) AS changed
             GROUP BY service_id HAVING sum(items) <> 0;
    END CASE;
    RETURN NULL;
END $$;

CREATE TRIGGER enrolment_added AFTER INSERT ON enrolment REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION count_items('joined');
CREATE TRIGGER enrolment_changed AFTER UPDATE ON enrolment REFERENCING NEW TABLE AS added OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION count_items('joined');
CREATE TRIGGER enrolment_gone AFTER DELETE ON enrolment REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION count_items('joined');
CREATE TRIGGER waiting_added AFTER INSERT ON waiting REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION count_items('waiting');
CREATE TRIGGER waiting_changed AFTER UPDATE ON waiting REFERENCING NEW TABLE AS added OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION count_items('waiting');
CREATE TRIGGER waiting_gone AFTER DELETE ON waiting REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION count_items('waiting');
CREATE TRIGGER quarantine_added AFTER INSERT ON quarantine REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION count_items('quarantined');
CREATE TRIGGER quarantine_gone AFTER DELETE ON quarantine REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION count_items('quarantined');

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

-- Which kinds of results came, of services whose plugin tells kinds, in each minute (kept for days) and hour (for ever).
CREATE TABLE history_kind (
    step        text NOT NULL,
    at          timestamptz NOT NULL,          -- when it began
    service_id  integer NOT NULL,
    label       text NOT NULL,
    results     bigint NOT NULL,
    PRIMARY KEY (service_id, step, at, label),
    CONSTRAINT history_kind_step_is_known CHECK (step IN ('minute', 'hour'))
) WITH (fillfactor = 70);

-- The number of the newest flush of each node's counters: one whose commit was not answered is sent again, and counts
-- once.
CREATE TABLE counter_flush (
    flusher     uuid PRIMARY KEY,              -- drawn at the start of a node
    number      bigint NOT NULL,
    at          timestamptz NOT NULL DEFAULT now()
);

-- What each client settles on a day, by UTC.  Days that are over are added to the week and the month of `client_period`,
-- some at a time, and go.
CREATE TABLE client_day (
    day         date NOT NULL,
    client_id   text NOT NULL,
    service_id  integer NOT NULL,
    settled     bigint NOT NULL,
    PRIMARY KEY (day, client_id, service_id)
) WITH (fillfactor = 70);

-- What each client settled in the running week, from Monday on, and in the running month, but for the days that still
-- stand in `client_day`.
CREATE TABLE client_period (
    period      text NOT NULL,
    begins      date NOT NULL,
    client_id   text NOT NULL,
    service_id  integer NOT NULL,
    settled     bigint NOT NULL,
    PRIMARY KEY (period, begins, client_id, service_id),
    CONSTRAINT client_period_is_known CHECK (period IN ('week', 'month'))
);

-- What each client settled in a span (`day`, `week`, `month` or `all` time) in one service, or in all (null).  Put into
-- the statement, as a view is; costs a look at a row for each client that worked in the span, and service.
CREATE FUNCTION settled_in(span text, of_service integer) RETURNS TABLE (client_id text, settled bigint)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
SELECT w.client_id, sum(w.settled)::bigint
  FROM (SELECT m.client_id, m.settled FROM membership m
         WHERE span = 'all' AND m.settled > 0 AND (of_service IS NULL OR m.service_id = of_service)
        UNION ALL
        SELECT d.client_id, d.settled FROM client_day d
         WHERE span <> 'all' AND d.day >= date_trunc(span, now())::date
           AND (of_service IS NULL OR d.service_id = of_service)
        UNION ALL
        SELECT p.client_id, p.settled FROM client_period p
         WHERE span IN ('week', 'month') AND p.period = span AND p.begins = date_trunc(span, now())::date
           AND (of_service IS NULL OR p.service_id = of_service)) w
 GROUP BY w.client_id;
END;

-- What happened, on all nodes; the newest hundred thousand are kept.
CREATE TABLE event (
    event_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL,
    boot        bigint NOT NULL,
    kind        text NOT NULL,
    client_id   text,
    service     text,                          -- its name
    bucket_id   text,
    text        text NOT NULL,
    severity    text NOT NULL
);
CREATE INDEX event_client ON event (client_id, event_id) WHERE client_id IS NOT NULL;
CREATE INDEX event_service ON event (service, event_id) WHERE service IS NOT NULL;
CREATE INDEX event_kind ON event (kind, event_id);
CREATE INDEX event_fault ON event (at) WHERE kind = 'fault';
CREATE INDEX event_serious ON event (event_id) WHERE severity <> 'info';
