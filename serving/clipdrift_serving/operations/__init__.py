"""What an operator needs around the server: figures, several workers, logs."""
