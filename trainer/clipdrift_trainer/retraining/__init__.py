"""Shadow retrains against the model in service: arms, paired contrasts, a gate of three values, one job that may be killed."""
