"""Another encoder takes the place of the one in use: what it costs, how good it is, and going over."""
