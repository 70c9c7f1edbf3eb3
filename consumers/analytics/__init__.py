"""Sample consumer: live counts per account and webhook field, on a terminal and on a page. In this form in memory."""
