"""`python -m dealeriq` is `dealeriq`."""

from dealeriq.cli import main

main()
