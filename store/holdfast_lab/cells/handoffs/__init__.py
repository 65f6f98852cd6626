"""Hand-offs between two real clusters: a great many messages, each once and in order, while everything is killed."""
