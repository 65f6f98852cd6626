"""Users, roles and what they may touch: a part of the replicated state, and the checks that rest on it."""
