"""A retrain as a job of a CI carries it out: claimed at the monitor, done here, told there and on the CI's own pages."""
