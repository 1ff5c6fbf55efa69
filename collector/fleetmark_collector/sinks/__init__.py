"""The stores: one role, one file per database."""
