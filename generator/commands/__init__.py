"""The `factory` commands of this room, one module a concern; each has `register(app)`."""
