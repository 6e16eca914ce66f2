"""The commands of `trainer`, a module each or a few that belong together."""
