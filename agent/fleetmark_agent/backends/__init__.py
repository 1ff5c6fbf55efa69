"""Inference engines: one role, one file per engine, none imported before it is asked for."""
