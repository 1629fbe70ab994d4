"""Is this data fit to train on? Checks of a task's rows before training: what each found, in words and numbers."""
