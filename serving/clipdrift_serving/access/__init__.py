"""Who may ask for what, and over which encryption: API keys and certificates, each read again when its file changes."""
