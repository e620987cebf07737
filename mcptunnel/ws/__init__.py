"""Floor 2: MCP over WebSocket, on autobahn."""
