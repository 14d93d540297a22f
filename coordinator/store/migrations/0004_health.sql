-- Clients that do harm: what is known of each, and what comes of it.

ALTER TABLE client_service
    ADD COLUMN health       text NOT NULL DEFAULT 'ok' CHECK (health IN ('ok', 'watched', 'flagged')),
    ADD COLUMN health_reason text,             -- in words
    -- What the rules look at.  A run ends when the client settles an item; after some buckets in a row that it
    -- settled whole (well), what died before is forgotten.
    ADD COLUMN well         integer NOT NULL DEFAULT 0,   -- buckets settled whole in a row, without a fault between
    ADD COLUMN died         integer NOT NULL DEFAULT 0,   -- buckets that were marked dead
    ADD COLUMN died_run     integer NOT NULL DEFAULT 0,   -- the same, run
    ADD COLUMN asked_on     integer NOT NULL DEFAULT 0,   -- buckets taken after one had died, run
    ADD COLUMN hoarded      integer NOT NULL DEFAULT 0,   -- asks while older buckets lay untouched, run
    ADD COLUMN refused      integer NOT NULL DEFAULT 0,   -- submits refused in a row
    ADD COLUMN returned     integer NOT NULL DEFAULT 0,   -- give-backs and cut-offs, run; several at a time are one
    ADD COLUMN returned_at  timestamptz,
    ADD COLUMN seconds      double precision NOT NULL DEFAULT 0,  -- that it worked on its last items
    ADD COLUMN paced        integer NOT NULL DEFAULT 0,   -- those items
    ADD CHECK ((health = 'ok') = (health_reason IS NULL));
CREATE INDEX client_service_unwell ON client_service (service_id, health) WHERE health <> 'ok';

-- How often a client gave which kind of result in the last hours, by the hour, since what is to be checked changes.
CREATE TABLE client_label (
    service_id  integer NOT NULL,
    hour        timestamptz NOT NULL,
    client_id   text NOT NULL,
    label       text NOT NULL,
    n           integer NOT NULL,
    PRIMARY KEY (service_id, hour, client_id, label)
);
