"""Tells Alertmanager of incidents, and keeps what it believes true."""
