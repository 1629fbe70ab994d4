"""Carries out what was decided: events onto the bus, retraining jobs started, found again, or given up."""
