"""From text to grounded records: ingest, plan, prompts, teachers, gates; the `factory` command."""
