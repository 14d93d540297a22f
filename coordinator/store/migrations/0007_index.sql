-- Which open bucket holds an item is known at once: entries that were put aside to be sorted in later cost the making
-- of buckets as much, made one run in ten wait for all of them, and each look-up read through them.
ALTER INDEX bucket_items_open SET (fastupdate = off);
SELECT gin_clean_pending_list('bucket_items_open');
