"""Sample consumer: says which reply each message would get, and why one gets none. In this form it never sends."""
