"""Everything that must survive: one transaction for what a batch of events changed and for how far the bus was read."""
