"""Counts in DuckDB what the manifest of the run in `data/lake` says that there is: rows, stages, decisions, dead letters."""

import json
import sys

import duckdb

sys.stdin.read()


def rows(query):
    return dict(duckdb.sql(query).fetchall())


def one(query):
    return duckdb.sql(query).fetchall()[0][0]


final = "read_parquet('data/lake/profiles/*/*.parquet') where final"
decisions = "read_parquet('data/lake/decisions/*/*.parquet', hive_partitioning = true)"
dead_letters = "read_parquet('data/lake/dead_letters/*.parquet')"
counts = {
    "users": one(f"select count(distinct (app_id, user_id)) from {final}"),
    "profiles": one(f"select count(*) from {final}"),
    # A row lies in the folder of its date, and a decision has a position if and only if an event caused it.
    "misplaced": one(f"select count(*) from {decisions} where event_date <> (event_time at time zone 'UTC')::date"),
    "causeless": one(f"select count(*) from {decisions} where (cause = 'timer') <> (_position is null)"),
}
counts |= rows(f"select 'stage.' || lifecycle_stage, count(*) from {final} group by all")
counts |= rows(f"select 'decisions.' || trigger, count(*) from {decisions} group by all")
counts |= rows(f"select 'dead.' || reason, count(*) from {dead_letters} group by all")
json.dump(counts, sys.stdout)
