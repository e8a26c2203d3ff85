"""What recommendations are made of: the fold of orders, a dealer's candidates, what a model reads of them."""
