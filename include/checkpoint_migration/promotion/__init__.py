"""From staging to live: the one transaction, what it may meet there, and what it left."""
