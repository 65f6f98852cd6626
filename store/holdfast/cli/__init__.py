"""`holdfast …`: the server, the edge replica and the client at the command line."""
