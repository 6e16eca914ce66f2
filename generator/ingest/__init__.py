"""From files to blocks of snippets: read, repair, split into sentences, cut into windows, append to the corpus."""
