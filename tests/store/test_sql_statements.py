"""The text of a migration is taken apart where one statement ends, and nowhere else."""

from __future__ import annotations

import pytest

from coordinator.store.sql_statements import statements

WHOLE = [
    "SELECT ';'",
    "SELECT 'it''s; so'",
    r"SELECT E'\';', e'\\'",
    'SELECT 1 AS "a;""b"',
    "SELECT $$;$$, $a$ $$;$$ ; $b$;$a$",
    "SELECT a$b$c, $1, U&'\\0061;', date'2026-01-01' -- no; end",
    "SELECT 1 /* ; /* ; */ ' ; */ + 2",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN 1 = 1 THEN 1; END; SELECT 2; END",
    "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN RETURN CASE WHEN true THEN 1 END; END $f$",
    "SELECT CASE WHEN true THEN 1 END AS begin, 2 AS atomic",
    "SELECT 'é', \"日本\", ünïcode FROM t WHERE a->>'x' = ANY ($1::text[])",
]


@pytest.mark.parametrize("sql", WHOLE)
def test_a_statement_stays_whole(sql: str) -> None:
    text = f"-- first;\nSELECT 0;;\n  ;{sql}\n;\n\nSELECT 3\n-- the end;\n"
    found = list(statements(text))
    assert [one.sql for one in found[:2]] == ["SELECT 0", sql]
    assert found[2].sql.startswith("SELECT 3")
    assert [one.line for one in found] == [2, 3, 6 + sql.count("\n")]


@pytest.mark.parametrize("text", ["SELECT '", 'SELECT "a', "SELECT $a$ $$", "/* /* */", "BEGIN ATOMIC SELECT 1;"])
def test_what_does_not_end_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="does not end"):
        list(statements(text))


def test_there_may_be_nothing() -> None:
    assert list(statements(" ; -- nothing\n;;/**/")) == []
