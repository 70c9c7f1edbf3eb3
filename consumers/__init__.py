"""Two sample consumers to copy: they share topics and schemas with the bridge, and not a line of code."""
