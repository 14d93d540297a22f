-- The follow graph, filled by follower_check and following_check.

-- Accounts by name, as items have it; most of them are no items.
CREATE TABLE follow_account (
    account_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key         text COLLATE "C" NOT NULL,     -- as it was first written
    canonical   text COLLATE "C"               -- by which it is compared, if that is another text: keys.read_key
);
CREATE UNIQUE INDEX follow_account_canonical ON follow_account (coalesce(canonical, key));

-- The attributes of an account as a claim told them: they go with the claim, as its edges do.
CREATE TABLE follow_told (
    account_id  bigint NOT NULL,
    claim_id    bigint NOT NULL,
    item_id     bigint NOT NULL,               -- with which they were told
    attributes  jsonb NOT NULL,
    PRIMARY KEY (account_id, claim_id)
);
CREATE INDEX follow_told_item ON follow_told (item_id);

-- Accounts with the attributes that the newest claim told of them which was not invalidated.
CREATE VIEW follow_account_told AS
SELECT a.account_id, a.key, coalesce(t.attributes, '{}') AS attributes, t.claim_id
  FROM follow_account a
  LEFT JOIN LATERAL (
    SELECT t.attributes, t.claim_id FROM follow_told t
      JOIN claim c ON c.claim_id = t.claim_id AND c.invalidated_by IS NULL
     WHERE t.account_id = a.account_id ORDER BY t.claim_id DESC LIMIT 1) t ON true;

-- One row for each time that an edge was seen, insert only: that an invalidated claim does not count, and counts
-- again, needs no write here.
CREATE TABLE follow_sighting (
    follower    bigint NOT NULL,
    followed    bigint NOT NULL,
    claim_id    bigint NOT NULL,               -- through which it was told
    item_id     bigint NOT NULL,               -- of whom it was told: the one or the other
    at          timestamptz NOT NULL,
    PRIMARY KEY (follower, followed, claim_id)
);
CREATE INDEX follow_sighting_followed ON follow_sighting (followed, follower);
CREATE INDEX follow_sighting_item ON follow_sighting (item_id);

CREATE VIEW follow AS
SELECT a.key AS follower, b.key AS followed,
       min(s.at) AS first_seen, min(s.claim_id) AS first_claim,
       max(s.at) AS last_seen, max(s.claim_id) AS last_claim
  FROM follow_sighting s
  JOIN follow_account a ON a.account_id = s.follower
  JOIN follow_account b ON b.account_id = s.followed
  JOIN claim c ON c.claim_id = s.claim_id AND c.invalidated_by IS NULL
 GROUP BY 1, 2;
