"""Holds the views of a retail run against plain SQL over the data, cell by cell.

Standard input: a JSON object with `data` (the order lines) and `lake` (the run's tables). Standard output: for each view the number of
cells and those that differ.
"""

import json
import math
import sys

import duckdb

asked = json.load(sys.stdin)
database = duckdb.connect()
database.execute("set timezone = 'UTC'")

COLUMNS = {
    "InvoiceNo": "varchar", "Quantity": "double", "InvoiceDate": "timestamp", "UnitPrice": "double",
    "Country": "varchar", "CustomerID": "varchar",
}
database.execute(
    f"""create table lines as select row_number() over () as place, CustomerID as user_id, InvoiceDate as time, Country as country,
            Quantity * UnitPrice as value, starts_with(InvoiceNo, 'C') as is_return
        from read_json(?, format = 'newline_delimited', compression = 'zstd', columns = {COLUMNS})
        where CustomerID is not null""",
    [asked["data"]],
)
database.execute("create view orders as select * from lines where not is_return")

# By view: its columns that name a cell, those that hold numbers, and the same from scratch.
VIEWS = {
    "retention": (
        ["cohort", "active"], ["users"],
        """with began as (select user_id, date_trunc('month', min(time)) as cohort from orders group by all)
           select cohort::varchar as cohort, date_trunc('month', time)::varchar as active, count(distinct user_id) as users
           from orders join began using (user_id) group by all""",
    ),
    "repeat_and_return": (
        ["step"], ["users", "median_seconds"],
        """with one as (select user_id, min(time) as began, min(time) as reached from orders group by all),
                two as (select user_id, any_value(began) as began, min(time) as reached from orders join one using (user_id)
                        where time > reached and time <= began + interval 365 days group by user_id),
                three as (select user_id, any_value(began) as began, min(time) as reached from lines join two using (user_id)
                          where is_return and time > reached and time <= began + interval 365 days group by user_id),
                taken as (select 'order' as step, * from one union all select 'repeat_order', * from two
                          union all select 'return', * from three)
           select step, count(*) as users,
                  -- The median at a rank, not between two.
                  list_sort(list(epoch(reached) - epoch(began)))[ceil(count(*) / 2)::int] as median_seconds
           from taken group by step""",
    ),
    "revenue_by_country": (
        ["country"], ["users", "sum"],
        """with last as (select user_id, arg_max(country, (time, place)) as country, max(time)::date as today from lines group by user_id),
                bought as (select user_id, any_value(last.country) as country,
                                  sum(value) filter (not is_return and date_diff('day', time::date, (select max(time)::date from lines)) < 365) as value
                           from lines join last using (user_id) group by user_id)
           select country, count(*) as users, sum(coalesce(value, 0)) as sum from bought group by country""",
    ),
}


def close(ours, theirs):
    """Sums of money may be rounded in another order."""
    return math.isclose(ours, theirs, rel_tol=1e-9, abs_tol=1e-3)


answer = {}
for view, (names, numbers, query) in VIEWS.items():
    keys = ", ".join(f"{name}::timestamp::varchar as {name}" if name in ("cohort", "active") else name for name in names)
    values = ", ".join(numbers)
    ours = database.execute(
        f"""select {keys}, {values} from read_parquet('{asked["lake"]}/views/{view}/*.parquet')
            group by all having sum(_diff) > 0"""
    ).fetchall()
    theirs = database.execute(f"select {', '.join(names)}, {values} from ({query})").fetchall()
    width = len(names)
    ours, theirs = ({row[:width]: row[width:] for row in rows} for rows in (ours, theirs))
    differences = [
        [list(cell), ours.get(cell), theirs.get(cell)]
        for cell in sorted(set(ours) | set(theirs), key=str)
        if cell not in ours or cell not in theirs or not all(map(close, ours[cell], theirs[cell]))
    ]
    answer[view] = {"cells": len(theirs), "differences": differences[:20]}
json.dump(answer, sys.stdout)
