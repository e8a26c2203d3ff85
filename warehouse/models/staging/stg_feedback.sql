select
  event_id, dealer_id, subject_type, subject_id, kind, value, comment, source, {{ moment('event_time') }} as given_at
from ({{ events('feedback') }})
