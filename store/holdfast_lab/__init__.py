"""What proves holdfast and shows it: the simulator, the crash tester, the demonstration. It is in the repository only,
not in what is installed in production, and nothing of that imports it."""
