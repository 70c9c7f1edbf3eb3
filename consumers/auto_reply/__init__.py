"""Sample consumer: answers customers by rules, each event at most once, and keeps a ledger that shows it."""
