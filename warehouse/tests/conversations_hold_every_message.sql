select sum(messages) as held, (select count(*) from {{ ref('stg_chats') }}) as said
from {{ ref('conversations_with_outcomes') }}
having coalesce(held, 0) != said
