"""Leads in the stream: what is kept of conversations, who scores them, and what the online model has learnt."""
