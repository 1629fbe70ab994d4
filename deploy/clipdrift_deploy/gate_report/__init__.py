"""What the gate checked of a candidate, as rows, a picture and a page."""
