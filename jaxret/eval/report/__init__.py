"""What a results folder shows: a leaderboard on the terminal, and one page that explains it."""
