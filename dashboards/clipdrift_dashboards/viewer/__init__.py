"""Shows the dashboards in a browser where no Grafana is at hand: the same JSON, the same queries, drawn as SVG and HTML."""
