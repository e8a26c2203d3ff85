select
  event_id, dealer_id, subject_type, subject_id, label, value, source, cause_id, {{ moment('event_time') }} as given_at
from ({{ events('labels') }})
