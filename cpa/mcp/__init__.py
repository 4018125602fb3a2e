"""The MCP server that command-line agents start to reach the tools of the client that they work for."""
