"""Data sets that Motet can build from installed packages, as tables like a user's own."""
