"""The server's front for clients: passes calls to services in batches, bytes in and bytes out, for any transport."""
