"""A run in hand: what it was asked, what its steps recorded, and its hold on the target."""
