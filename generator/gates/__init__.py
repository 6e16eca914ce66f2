"""The gates every generated field passes before it can become part of a record. `Gates` is the whole chain."""

from generator.gates.chain import Gates

__all__ = ["Gates"]
