"""The layers a claim passes, cheapest first; pure."""
