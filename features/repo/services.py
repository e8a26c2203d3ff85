"""Feature services: the views that are read together."""

from feast import FeatureService

from features.repo import views

dealer = FeatureService(
    name="dealer", features=[views.dealer_orders, views.dealer_chats, views.dealer_feedback]
)
dealer_category = FeatureService(name="dealer_category", features=[views.dealer_category_orders])
product = FeatureService(name="product", features=[views.product_demand])

SERVICES = (dealer, dealer_category, product)
