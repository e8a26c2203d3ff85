select
  event_id, order_id, line, dealer_id, customer_id, product_id, category, brand, quantity, amount, discount, currency,
  channel, {{ moment('event_time') }} as ordered_at, cast({{ moment('event_time') }} as date) as day
from ({{ events('orders') }})
