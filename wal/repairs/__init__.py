"""What is done to a damaged log by hand: judge what is left, choose, mend. No start runs it."""
