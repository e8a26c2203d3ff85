-- What happened at each dealer on each day (UTC).
with ordered as (
  select
    dealer_id, day, count(*) as lines, count(distinct order_id) as orders, sum(quantity) as units,
    sum(amount) as revenue, sum(discount) as discount, count(distinct customer_id) as customers,
    count(distinct product_id) as products
  from {{ ref('stg_orders') }} group by dealer_id, day
), said as (
  select
    dealer_id, cast(said_at as date) as day, count(*) as messages, count(distinct conversation_id) as conversations
  from {{ ref('stg_chats') }} group by all
), meant as (
  select
    dealer_id, cast(said_at as date) as day, avg(sentiment) as sentiment, avg(urgency) as urgency
  from {{ ref('stg_chats_enriched') }} group by all
), judged as (
  select dealer_id, cast(given_at as date) as day, count(*) as feedback, avg(value) as feedback_value
  from {{ ref('stg_feedback') }} group by all
), days as (
  select dealer_id, day from ordered
  union select dealer_id, day from said
  union select dealer_id, day from meant
  union select dealer_id, day from judged
)
select
  dealer_id, day,
  coalesce(lines, 0) as lines, coalesce(orders, 0) as orders, coalesce(units, 0) as units,
  coalesce(revenue, 0) as revenue, coalesce(discount, 0) as discount, coalesce(customers, 0) as customers,
  coalesce(products, 0) as products, coalesce(messages, 0) as messages,
  coalesce(conversations, 0) as conversations, sentiment, urgency, coalesce(feedback, 0) as feedback, feedback_value
from days
left join ordered using (dealer_id, day)
left join said using (dealer_id, day)
left join meant using (dealer_id, day)
left join judged using (dealer_id, day)
