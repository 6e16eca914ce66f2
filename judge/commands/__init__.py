"""The commands of `judge`, a module each: `register(app)` adds them, and imports nothing heavy."""
