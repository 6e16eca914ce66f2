"""A dataset to hand on: accepted records, by split, with a card that says what they are."""
