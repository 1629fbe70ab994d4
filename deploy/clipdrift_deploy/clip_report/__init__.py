"""What clipping did in one run, as one HTML file: gathering -> figures and verdict -> pictures -> page."""
