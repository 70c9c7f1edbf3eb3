"""One module per ``bridge`` command, each with a click command named ``command``."""
