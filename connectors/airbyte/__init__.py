"""Airbyte sources: programs that speak Airbyte's protocol, run as a process, read into an inbound topic."""
