"""Speed harnesses, run by hand; the tests never run them."""
