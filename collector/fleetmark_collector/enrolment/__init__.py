"""Who is let in: identities of devices, the broker's users and rules, and their end."""
