"""What result lines say, as tables and plots."""
