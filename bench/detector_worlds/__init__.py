"""Streams of errors with and without a change, peers with their thresholds, and real streams, for bench/detectors.py."""
