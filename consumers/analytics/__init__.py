"""Sample consumer: every event exactly once in a DuckDB file, and its figures on a live page."""
