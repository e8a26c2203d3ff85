"""The demonstration: carried data through the whole system, watched and summed up."""
