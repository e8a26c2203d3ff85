select
  event_id, conversation_id, dealer_id, customer_id, sender, text, language, {{ moment('event_time') }} as said_at
from ({{ events('chats') }})
