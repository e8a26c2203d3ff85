with mart as (
  select sum(lines) as lines, sum(units) as units, sum(revenue) as revenue from {{ ref('product_demand') }}
), staging as (
  select count(*) as lines, sum(quantity) as units, sum(amount) as revenue from {{ ref('stg_orders') }}
)
select * from mart, staging
where coalesce(mart.lines, 0) != staging.lines or coalesce(mart.units, 0) != coalesce(staging.units, 0)
  or abs(coalesce(mart.revenue, 0) - coalesce(staging.revenue, 0)) > 0.005
