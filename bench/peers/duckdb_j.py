"""The nearest batch query to job J in DuckDB: hourly panes, the score at the end of each hour, and where it comes to lie above 0.7."""

import os

import duckdb

KINDS = {"errors": "error_encountered", "logins": "user_login", "tickets": "support_ticket_created",
         "failures": "payment_failed", "features": "feature_used"}  # fmt: skip
counts = ", ".join(f"count(*) filter (event_type = '{kind}') as {name}" for name, kind in KINDS.items())
sums = ", ".join(f"sum({name}) over day as {name}" for name in KINDS)
query = f"""
with lines as (
    select * from read_json('{os.environ["J_INPUT"]}', format = 'newline_delimited', columns = {{
        event_id: 'VARCHAR', user_id: 'VARCHAR', event_type: 'VARCHAR', timestamp: 'TIMESTAMPTZ',
        properties: 'STRUCT(duration DOUBLE)' }})
),
hours as (
    select user_id, date_trunc('hour', timestamp) as hour, count(*) as events, sum(properties.duration) as duration, {counts}
    from lines group by all
),
windows as (
    select user_id, hour, {sums} from hours
    window day as (partition by user_id order by hour range between interval 23 hour preceding and current row)
),
scores as (
    select *, 1 / (1 + exp(-(-2 + 0.5 * errors - 0.3 * logins + 0.8 * tickets + failures))) as risk from windows
),
edges as (select *, lag(risk) over (partition by user_id order by hour) as before from scores)
select * exclude before from edges where risk > 0.7 and coalesce(before, 0) <= 0.7
"""
connection = duckdb.connect()
connection.execute(f"set threads = {os.environ['J_WORKERS']}")
connection.execute("set timezone = 'UTC'")
connection.execute(f"copy ({query}) to '{os.environ['J_OUTPUT']}' (format json)")
