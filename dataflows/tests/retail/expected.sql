-- The features of config/jobs/retail.toml as plain SQL over all of a customer's order lines, as of `now`.
--
-- `lines` holds the valid lines with their place in the file; `until` is the first instant that no longer counts. A window of
-- N days is N whole days in UTC, the day of `now` and the N - 1 before it.
with seen as (
    select *, quantity * unit_price as value, date_diff('day', time::date, getvariable('now')::date) as age_days
    from lines where time < getvariable('until')
),
orders as (select * from seen where not starts_with(invoice, 'C')),
returns as (select * from seen where starts_with(invoice, 'C')),
starts as (
    select user_id, age_days,
           time - lag(time) over (partition by user_id order by time, place) <= interval 8 hours as goes_on
    from orders
),
trips as (select user_id, count(*) as trips_365d from starts where goes_on is not true and age_days < 365 group by user_id),
days as (select user_id, 89 - age_days as x, count(*) as y from orders where age_days < 90 group by all),
-- The least-squares slope over all 90 days, the empty ones too: their mean position is 44.5, the sum of squares 90 (90^2 - 1) / 12.
trends as (select user_id, sum((x - 44.5) * y) / (90 * (90 * 90 - 1) / 12.0) as order_trend from days group by user_id),
bought as (
    select user_id,
           count(distinct invoice) filter (age_days < 90) as orders_90d,
           count(distinct invoice) filter (age_days < 365) as orders_365d,
           count(distinct stock_code) filter (age_days < 365) as products_365d,
           coalesce(sum(value) filter (age_days < 90), 0) as revenue_90d,
           coalesce(sum(value) filter (age_days < 365), 0) as revenue_365d,
           epoch_us(getvariable('now') - max(time)) / 86400e6 as days_since_last_order,
           avg(value) filter (age_days < 365) as line_value_mean,
           max(value) filter (age_days < 365) as dearest_line_365d,
           sum(value * pow(2, -epoch_us(getvariable('now') - time) / (30 * 86400e6)))
             / sum(pow(2, -epoch_us(getvariable('now') - time) / (30 * 86400e6))) as line_value_recent
    from orders group by user_id
),
returned as (
    select user_id,
           count(distinct invoice) filter (age_days < 365) as returns_365d,
           coalesce(sum(-value) filter (age_days < 365), 0) as refunded_365d
    from returns group by user_id
),
touched as (
    select user_id,
           epoch_us(getvariable('now') - max(time)) / 86400e6 as days_since_last_activity,
           arg_max(country, (time, place)) as country
    from seen group by user_id
)
select user_id,
       coalesce(orders_90d, 0) as orders_90d, coalesce(orders_365d, 0) as orders_365d,
       coalesce(trips_365d, 0) as trips_365d, coalesce(products_365d, 0) as products_365d,
       coalesce(revenue_90d, 0) as revenue_90d, coalesce(revenue_365d, 0) as revenue_365d,
       coalesce(returns_365d, 0) as returns_365d, coalesce(refunded_365d, 0) as refunded_365d,
       days_since_last_order, days_since_last_activity, line_value_mean, line_value_recent, dearest_line_365d,
       coalesce(order_trend, 0) as order_trend, country
from touched left join bought using (user_id) left join returned using (user_id)
             left join trips using (user_id) left join trends using (user_id)
