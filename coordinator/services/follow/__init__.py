"""The graph of followers: two checks that fill it."""
