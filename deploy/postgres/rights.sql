-- The rights of the nodes' role, and no more: it owns nothing and changes no schema.  Run by the owner of the database,
-- after each `coordinator db migrate`; harmless to repeat.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'coordinator_node') THEN
        CREATE ROLE coordinator_node LOGIN;
    END IF;
END $$;
GRANT USAGE ON SCHEMA public TO coordinator_node;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO coordinator_node;
REVOKE INSERT, UPDATE, DELETE ON migration, key_form FROM coordinator_node;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO coordinator_node;
GRANT EXECUTE ON FUNCTION activity_keep(integer) TO coordinator_node;
