"""Incidents: everything that has one cause, from its first window until it is quiet. Pure: values in, values out."""
