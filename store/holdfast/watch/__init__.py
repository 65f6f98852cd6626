"""From applied changes to the streams of those who watch."""
