"""Where IO lives: HTTP, Kafka, the schema registry. Each module is thin, and translates its library's errors in one place."""
