"""The time-series store: InfluxDB, and what speaks its protocols."""
