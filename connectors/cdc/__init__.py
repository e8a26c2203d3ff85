"""Change data capture: rows of a PostgreSQL database, as they change, into inbound topics.

Kafka Connect with Debezium's connector writes each change to a topic of its own; a bridge turns these into the
inbound topics' contracts, and keeps its position in the ledger, in the same transaction as what it wrote.
"""
