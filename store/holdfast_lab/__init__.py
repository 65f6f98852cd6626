"""Tests and demonstration of holdfast: the simulator, the crash tester, the demonstration. This package is only in the
repository. It is not installed in production, and no production code imports it."""
