"""Counts the rows of the Delta tables in `data/lake`, and those of all Parquet files that lie there."""

import json
import sys

import duckdb
from deltalake import DeltaTable

sys.stdin.read()


def counts(name, pattern):
    table = DeltaTable(f"data/lake/{name}")
    rows = table.to_pyarrow_table()
    plain = duckdb.sql(f"select count(*) from read_parquet('data/lake/{name}/{pattern}')").fetchall()[0][0]
    final = sum(rows["final"].to_pylist()) if "final" in rows.column_names else 0
    return {"rows": rows.num_rows, "final": final, "plain": plain, "version": table.version()}


tables = {
    "profiles": counts("profiles", "as_of_date=*/*.parquet"),
    "decisions": counts("decisions", "event_date=*/*.parquet"),
    "dead_letters": counts("dead_letters", "*.parquet"),
}
json.dump(tables, sys.stdout)
