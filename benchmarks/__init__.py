"""Speed harnesses, run by hand (`make bench`); the tests only see that they work."""
