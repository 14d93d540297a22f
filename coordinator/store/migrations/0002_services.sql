-- Services that are added while the catalogue is full, and results that are taken back.

-- How far a new service has come through the catalogue; gone once it is through.  Items behind `upto` join it when
-- they are added.
CREATE TABLE service_fill (
    service_id  integer PRIMARY KEY REFERENCES service,
    after       bigint NOT NULL DEFAULT 0,
    upto        bigint NOT NULL
);

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
-- Results that left their items unsettled stand in no row of `result`, but came through the claim all the same.
ALTER TABLE claim ADD COLUMN parts integer NOT NULL DEFAULT 0;
CREATE INDEX invalidation_open ON invalidation (invalidation_id) WHERE requeued IS NOT NULL;
CREATE INDEX claim_invalidated ON claim (invalidated_by, claim) WHERE invalidated_by IS NOT NULL;
