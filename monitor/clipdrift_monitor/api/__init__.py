"""What the monitor knows, over HTTP: JSON for programs, pages for people, figures for Prometheus; commands with a token."""
