"""A stand-in for Meta: conversations, the bodies they arrive in, and a sender that signs, keeps order and retries.

In reading order: `shapes` (what an item is made of), `scenes` (what people do), `conversations` (who does it when),
`quirks` (what breaks strict parsers), `deliveries` (items put into bodies, repeatable by seed), `signing`, `sender`
(signed POSTs at a pace), `truth` (what must be in Kafka afterwards, worked out without the bridge's own code).
"""
