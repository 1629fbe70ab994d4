"""What another policy would have decided over a project's history: read from the store, told as a table and as a page."""
