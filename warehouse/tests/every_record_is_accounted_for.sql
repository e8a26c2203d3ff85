select * from {{ ref('row_accounts') }}
where records != unreadable + tombstones + out_of_bounds + repeated_or_replaced + kept
