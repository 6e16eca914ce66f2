"""Plan, lease, run, commit once, ack: what keeps the teacher busy and loses nothing."""
