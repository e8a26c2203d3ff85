-- What was sold of each product on each day (UTC). Category and brand are the product's own where it is listed, else
-- those of its last order line of the day.
with sold as (
  select
    product_id, day, count(*) as lines, sum(quantity) as units, sum(amount) as revenue, sum(discount) as discount,
    count(distinct dealer_id) as dealers, count(distinct customer_id) as customers,
    arg_max(category, ordered_at) as line_category, arg_max(brand, ordered_at) as line_brand
  from {{ ref('stg_orders') }} group by product_id, day
)
select
  s.product_id, s.day, coalesce(p.category, s.line_category) as category, coalesce(p.brand, s.line_brand) as brand,
  p.name, p.product_id is not null as is_listed, s.lines, s.units, s.revenue, s.discount, s.dealers, s.customers,
  s.revenue / nullif(s.units, 0) as price_paid
from sold s left join {{ ref('stg_products') }} p on p.product_id = s.product_id
