"""A real Postgres on its bad days, one kind after another, while clients work on a node."""
