"""What a user brings: rows as they were known at a time, a model, a way to fit it."""
