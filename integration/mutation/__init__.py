"""Whether the tests notice a fault: small changes of the code, one at a time, each with the tests that it concerns."""
