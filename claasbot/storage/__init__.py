"""The store: one SQLite database, one connection, one writer thread, explicit queries."""
