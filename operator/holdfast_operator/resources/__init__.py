"""The objects that the operator makes, as plain dictionaries that depend only on the specs."""
