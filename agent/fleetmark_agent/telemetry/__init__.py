"""What the device is doing: sensors, the process tree of a backend, the sampler over both."""
