"""What bench/threshold.py measures in: data sets in time order, and many small models trained in lock-step."""
