"""Teachers: who writes the answers. `rules` is embedded, `openai` and `vllm` speak to a server."""
