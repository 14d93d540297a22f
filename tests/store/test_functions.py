"""The functions of the schema mean its tables, whoever calls them and whatever is in that one's search path."""

from __future__ import annotations

from tests.store.bench import Bench

# What is written in SQL, with a body that Postgres reads when the function is made, is bound to its tables then.
_LOOSE = """
SELECT array_agg(proname ORDER BY proname) FROM pg_proc
 WHERE pronamespace = 'public'::regnamespace AND prosqlbody IS NULL
   AND coalesce(proconfig::text, '') NOT LIKE '%search_path=public, pg_temp%'"""


async def test_no_function_depends_on_the_search_path_of_its_caller(bench: Bench) -> None:
    assert await bench.value("SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace") > 30
    assert await bench.value(_LOOSE) is None


async def test_what_stands_in_the_callers_temporary_tables_is_not_taken_for_the_tables_of_the_schema(
    bench: Bench,
) -> None:
    async with bench.database.transaction() as db:
        await db.execute("CREATE TEMPORARY TABLE count_change (LIKE public.count_change INCLUDING ALL) ON COMMIT DROP")
        await db.execute("CREATE TEMPORARY TABLE waiting (LIKE public.waiting INCLUDING ALL) ON COMMIT DROP")
        await db.execute("SET LOCAL search_path = ''")
        await db.execute("SELECT public.put_waiting($1, '{1,2}', now(), now(), 100)", bench.service)
        assert await db.fetchval("SELECT count(*) FROM public.take_waiting($1, '{1,2,3}')", bench.service) == 2
        assert await db.fetchval("SELECT count(*) FROM pg_temp.waiting") == 0
        assert await db.fetchval("SELECT count(*) FROM pg_temp.count_change") == 0
        changed = await db.fetch("SELECT what, number FROM public.count_change ORDER BY change_id")
        assert [tuple(row) for row in changed] == [("waiting", 2), ("waiting", -2)]
