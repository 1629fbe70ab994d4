"""Grafana dashboards and Prometheus rules, written as code and generated as files.

Rooms: `boards/` are the dashboards; `panels/` what they show, one noun a file; `linting` finds what is wrong; `rules`
holds recording rules and alerts; `thresholds` the numbers that panels and alerts share; `build` writes the files.
"""
