"""The dashboards, one file each: what operators look at."""
