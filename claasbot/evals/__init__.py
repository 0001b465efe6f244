"""Does learning work? Suites of cases, simulated people, scorers, and the commands that print figures."""
