-- Every dealer that is listed or was heard of.
with heard as (
  select dealer_id, ordered_at as heard_at from {{ ref('stg_orders') }}
  union all select dealer_id, said_at from {{ ref('stg_chats') }}
  union all select dealer_id, given_at from {{ ref('stg_feedback') }}
), spans as (
  select dealer_id, min(heard_at) as first_heard_at, max(heard_at) as last_heard_at from heard group by dealer_id
)
select
  coalesce(d.dealer_id, s.dealer_id) as dealer_id, d.name, d.region, d.dealer_id is not null as is_listed,
  s.first_heard_at, s.last_heard_at
from {{ ref('stg_dealers') }} d full join spans s on s.dealer_id = d.dealer_id
