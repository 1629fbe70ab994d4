"""The monitor's one writer: reads what the bus brings, judges what has closed, obeys people, and saves it all at once."""
