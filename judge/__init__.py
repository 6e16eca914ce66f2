"""The judge: (snippet, question, reference, answer) → PASS, FAIL or UNSCORED. It knows nothing of the training."""
