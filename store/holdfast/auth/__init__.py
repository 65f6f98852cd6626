"""Users, roles and permissions: a part of the replicated state, and the checks that use it."""
