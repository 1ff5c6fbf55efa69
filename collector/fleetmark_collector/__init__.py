"""The centre: receives records without loss, dispatches campaigns, reports."""
