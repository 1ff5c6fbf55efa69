"""What the collector tells about itself and the fleet: to dashboards, probes and Prometheus."""
