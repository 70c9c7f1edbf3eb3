"""Instagram messaging webhooks to Kafka: authenticated, typed, ordered per conversation, answered 200 only when safe."""
