"""Is the model harming its users? Three questions, a test each, one budget of false alarms."""
