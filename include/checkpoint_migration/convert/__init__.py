"""Pure conversion: a row of SQLite's layout into rows of PostgreSQL's, bytes copied, nothing revived."""
