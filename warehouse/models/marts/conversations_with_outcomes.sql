-- Each conversation with what it was about and how it was judged: a row to train on where `outcome` is not null.
-- Ratings are of 1 to 5; thumbs and outcomes count by their sign where nobody rated.
with messages as (
  select
    c.conversation_id, c.dealer_id, count(*) as messages, count(*) filter (c.sender = 'customer') as from_customer,
    min(c.said_at) as began_at, max(c.said_at) as ended_at, arg_max(c.event_id, c.said_at) as last_message_id,
    arg_max(e.intent, e.intent_score) as intent, avg(e.sentiment) as sentiment,
    arg_max(e.sentiment, c.said_at) as last_sentiment, max(e.urgency) as urgency,
    count(e.event_id) as enriched, string_agg(c.sender || ': ' || c.text, chr(10) order by c.said_at, c.event_id) as text
  from {{ ref('stg_chats') }} c left join {{ ref('stg_chats_enriched') }} e on e.cause_id = c.event_id
  group by c.conversation_id, c.dealer_id
), by_source as (
  -- Of one source's judgements the newest counts.
  select
    c.conversation_id, c.dealer_id, f.source, count(*) as judgements, arg_max(f.kind, f.given_at) as kind,
    arg_max(f.value, f.given_at) as value, max(f.given_at) as judged_at
  from {{ ref('stg_feedback') }} f join {{ ref('stg_chats') }} c on c.event_id = f.subject_id
  where f.subject_type = 'chat' group by all
), judged as (
  select
    conversation_id, dealer_id, cast(sum(judgements) as bigint) as judgements,
    avg(value) filter (kind = 'rating') as rating,
    arg_max(value, judged_at) filter (kind in ('thumb', 'outcome')) as verdict, max(judged_at) as judged_at
  from by_source group by all
), labelled as (
  select c.conversation_id, c.dealer_id, arg_max(l.label, l.given_at) as label
  from {{ ref('stg_labels') }} l join {{ ref('stg_chats') }} c on c.event_id = l.subject_id
  where l.subject_type = 'chat' group by all
)
select
  m.*, coalesce(j.judgements, 0) as judgements, j.rating, j.verdict, j.judged_at, l.label,
  case
    when j.rating >= 4 or (j.rating is null and j.verdict > 0) then 'good'
    when j.rating < 3 or (j.rating is null and j.verdict < 0) then 'poor'
    when coalesce(j.rating, j.verdict) is not null then 'fair'
  end as outcome
from messages m
left join judged j using (conversation_id, dealer_id)
left join labelled l using (conversation_id, dealer_id)
