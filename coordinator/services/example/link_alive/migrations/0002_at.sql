ALTER TABLE link_seen ADD COLUMN at timestamptz;
