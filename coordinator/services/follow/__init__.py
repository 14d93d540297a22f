"""Who follows whom: two checks that fill one graph."""
