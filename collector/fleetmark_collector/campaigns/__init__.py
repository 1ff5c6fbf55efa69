"""Campaigns: read from a file, planned into jobs, kept, dispatched and watched."""
