"""The key space as it is served: what a member, a replica and the simulator do alike with one."""
