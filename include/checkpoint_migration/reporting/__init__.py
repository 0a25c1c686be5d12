"""What people and programs read after a run: `report.json`, `report.html`, a table for the log."""
