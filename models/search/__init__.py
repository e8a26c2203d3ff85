"""Search: by meaning and by words, fused by rank, each hit with its reasons."""
