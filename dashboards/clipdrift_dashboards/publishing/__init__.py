"""Brings dashboards, alert rules and contact points into a Grafana by its HTTP API; what people changed there is
never written over unasked."""
