"""The report: one self-contained HTML page on a workspace at any stage. `collect` gathers, `page` renders."""
