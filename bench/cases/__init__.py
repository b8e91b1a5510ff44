"""Cases of `bench claims`: one question each, a row for each point."""
