"""Floor 2: the MCP servers we connect to. Each transport is a :class:`mcptunnel.core.wire.Wire`."""
