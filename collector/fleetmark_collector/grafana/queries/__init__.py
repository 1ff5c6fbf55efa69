"""Every query that dashboards and alerts ask, in one place, so that a test can run each of them.

The measurements and their fields are those of docs/influxdb-schema.md: what devices record
(`telemetry`, `trial`, `load`, `job`, `event`), and what the collector observes (`device`,
`collector`, `campaign`, `cell`).
"""
