"""The wire contract between agent and collector: topics, messages, records, metrics, states."""
