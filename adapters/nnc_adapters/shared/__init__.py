"""What adapters have in common: none of it knows a format."""
