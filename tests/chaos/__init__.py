"""Everything that can go wrong, made to go wrong: `python -m tests.chaos` says how."""
