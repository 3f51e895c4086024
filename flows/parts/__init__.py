"""What flows are made of: batches over tasks, the clock, the ways to end."""
