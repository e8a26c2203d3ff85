with mart as (
  select sum(lines) as lines, sum(units) as units, sum(revenue) as revenue, sum(messages) as messages,
    sum(feedback) as feedback from {{ ref('dealer_activity') }}
), staging as (
  select count(*) as lines, sum(quantity) as units, sum(amount) as revenue,
    (select count(*) from {{ ref('stg_chats') }}) as messages,
    (select count(*) from {{ ref('stg_feedback') }}) as feedback from {{ ref('stg_orders') }}
)
select * from mart, staging
where coalesce(mart.lines, 0) != staging.lines or coalesce(mart.units, 0) != coalesce(staging.units, 0)
  or abs(coalesce(mart.revenue, 0) - coalesce(staging.revenue, 0)) > 0.005
  or coalesce(mart.messages, 0) != staging.messages or coalesce(mart.feedback, 0) != staging.feedback
