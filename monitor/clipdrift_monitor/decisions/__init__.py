"""What to do about it; also when that is nothing."""
