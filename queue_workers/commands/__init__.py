"""The queue's half of the `factory` command, a module a concern."""
