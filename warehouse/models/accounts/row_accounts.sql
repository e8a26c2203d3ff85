-- What became of each record of the lake: kept, or why it is not. Nothing is dropped without being counted.
{% set topics = {
  'orders': 'stg_orders', 'chats': 'stg_chats', 'chats.enriched': 'stg_chats_enriched', 'feedback': 'stg_feedback',
  'labels': 'stg_labels', 'dealers': 'stg_dealers', 'products': 'stg_products',
} %}
{% for topic, model in topics.items() %}
select
  '{{ topic }}' as topic,
  count(*) as records,
  count(*) filter (_raw is not null) as unreadable,
  count(*) filter (_tombstone) as tombstones,
  count(*) filter (not _in_bounds and not _tombstone and _raw is null) as out_of_bounds,
  count(*) filter (_in_bounds) - (select count(*) from {{ ref(model) }}) as repeated_or_replaced,
  (select count(*) from {{ ref(model) }}) as kept
from {{ source('lake', topic) }}
{% if not loop.last %}union all{% endif %}
{% endfor %}
