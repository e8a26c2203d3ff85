"""Labels: feedback joined to what it is about, whichever of the two comes first."""
