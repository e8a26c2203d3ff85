select dealer_id, name, region, {{ moment('event_time') }} as changed_at
from ({{ latest('dealers', 'dealer_id') }})
