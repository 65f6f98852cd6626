"""What to do next, decided purely: `plan(desired, observed)` gives one action."""
