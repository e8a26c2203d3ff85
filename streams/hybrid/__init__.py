"""One vector of several kinds for each product, kept true to its parts."""
