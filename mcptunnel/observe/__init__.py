"""Floor 2: what is told about the daemon's work: access records, health."""
