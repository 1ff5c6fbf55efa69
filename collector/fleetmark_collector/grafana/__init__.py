"""Grafana as code: dashboards, alert rules and the datasource, written to files or pushed."""
