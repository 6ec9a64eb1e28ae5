"""Real servers and real faults for tests."""
