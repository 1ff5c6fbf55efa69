"""Everything that runs on a device: sample, run the assigned backend, deliver the records."""
