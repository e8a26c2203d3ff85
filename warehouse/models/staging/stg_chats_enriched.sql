select
  event_id, cause_id, conversation_id, dealer_id, sender, intent, intent_score, sentiment, urgency, encoder,
  {{ moment('event_time') }} as said_at
from ({{ events('chats.enriched') }})
