"""Did stage one pay off? Runs side by side, what they found, and the report that says so."""
