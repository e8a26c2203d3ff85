"""Whom features are about."""

from feast import Entity
from feast.value_type import ValueType

dealer = Entity(name="dealer", join_keys=["dealer_id"], value_type=ValueType.STRING)
category = Entity(name="category", join_keys=["category"], value_type=ValueType.STRING)
product = Entity(name="product", join_keys=["product_id"], value_type=ValueType.STRING)
