"""Objects the operator makes, as plain dictionaries, from specs and nothing else."""
