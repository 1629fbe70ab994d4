"""Grafana dashboards and Prometheus rules, written as code and generated as files.

Rooms: `panels/` holds what one row of a dashboard shows, one noun a file; `model_overview` puts the rows together; `rules`
holds recording rules and alerts; `thresholds` the numbers that panels and alerts share; `build` writes the files.
"""
