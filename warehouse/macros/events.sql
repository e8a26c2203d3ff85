{# Records of an event topic that are whole and within the contract's bounds, each id once: the first position counts. #}
{% macro events(topic, id='event_id') -%}
select * exclude (_raw, _tombstone, _in_bounds, _crc, _key, _date)
from {{ source('lake', topic) }}
where _in_bounds
qualify row_number() over (partition by {{ id }} order by _timestamp, _partition, _offset) = 1
{%- endmacro %}

{# The newest record of each key of a compacted topic, by event time, since its last delete; deleted keys are left out. #}
{% macro latest(topic, key) -%}
with records as (
  select *, max(case when _tombstone then _offset end) over (partition by _key, _partition) as _deleted_at
  from {{ source('lake', topic) }}
)
select * exclude (_raw, _tombstone, _in_bounds, _crc, _key, _date, _deleted_at)
from records
where _in_bounds and _offset > coalesce(_deleted_at, -1)
qualify row_number() over (partition by {{ key }} order by event_time desc, _partition desc, _offset desc) = 1
{%- endmacro %}

{% macro moment(column) -%}
epoch_ms({{ column }})
{%- endmacro %}
