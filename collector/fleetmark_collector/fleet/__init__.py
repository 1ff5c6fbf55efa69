"""Brings the agent onto many devices over ssh, each with its identity."""
