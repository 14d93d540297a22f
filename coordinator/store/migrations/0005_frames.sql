-- Frames are written once and read once, soon: compressing them costs more than it saves.
ALTER TABLE bucket_items ALTER COLUMN frame SET STORAGE EXTERNAL;
