"""The bus: one interface (`log`), two implementations with the same semantics, opened by address (`connect`)."""
