"""Who may ask for what, and over which encryption."""
