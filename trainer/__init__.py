"""From shards to a model that answers: shuffle, tokenizer, packs, training, answers, chat. Knows no queue and no teacher."""
