"""The page on which people answer: its server on the loopback, and the same as one static file."""
