"""From events to sums: each event counted once, each label counted once, whatever comes twice, late or out of order."""
