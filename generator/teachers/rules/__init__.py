"""The embedded teacher: no weights and no server; real questions, made from the snippet by rules of grammar."""

from generator.teachers.rules.teacher import RulesTeacher

__all__ = ["RulesTeacher"]
