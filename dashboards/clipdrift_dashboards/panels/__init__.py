"""The rows of dashboards, one noun a file; each has a function `row()`."""
