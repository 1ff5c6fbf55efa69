"""What `setup_centre.py` is made of; the standard library alone, for hosts without fleetmark."""
