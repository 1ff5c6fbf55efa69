"""The demo: a fleet of processes on this machine, composed as a deployment would."""
