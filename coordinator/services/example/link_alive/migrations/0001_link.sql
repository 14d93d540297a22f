CREATE TABLE link_seen (
    item_id  bigint NOT NULL,
    claim    bigint NOT NULL,
    key      text NOT NULL,
    alive    boolean NOT NULL,
    counts   boolean NOT NULL DEFAULT true,
    PRIMARY KEY (item_id, claim)
);
