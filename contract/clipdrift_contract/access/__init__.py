"""Who may ask, and for what: API keys, read from a file that may change."""
