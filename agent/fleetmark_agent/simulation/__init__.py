"""Many simulated devices in one process: the real protocol and outboxes, and no engine."""
