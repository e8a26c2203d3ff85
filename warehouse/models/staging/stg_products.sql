select
  product_id, name, category, subcategory, product_type, brand, manufacturer_id, package_size, price, deleted,
  {{ moment('event_time') }} as changed_at
from ({{ latest('products', 'product_id') }})
