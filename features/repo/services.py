"""Feature services: the views that are read together."""

from feast import FeatureService

from features.repo.now import NOW


def _service(name: str, *views: str) -> FeatureService:
    return FeatureService(name=name, features=[NOW[view] for view in views])


SERVICES = (
    _service("dealer", "dealer_orders", "dealer_chats", "dealer_feedback"),
    _service("dealer_category", "dealer_category_orders"),
    _service("product", "product_demand"),
)
