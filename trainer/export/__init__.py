"""Models handed on: in the layouts that others load, with a card, kept in an archive under an honest label."""
