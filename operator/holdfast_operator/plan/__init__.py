"""The planner, a pure function: `plan(desired, observed)` returns the next action."""
