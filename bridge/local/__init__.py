"""A real Kafka and a real schema registry on this machine, without containers: what `bridge dev` and the tests run."""
