"""What a computation costs, and which precision carries it."""
