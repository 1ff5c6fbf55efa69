"""Reports: group a campaign's trials into cells, compare what is comparable, say how sure."""
