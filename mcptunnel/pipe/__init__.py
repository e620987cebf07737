"""Floor 2: MCP on a pair of pipes, for a client that has started us."""
