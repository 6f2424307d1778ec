"""Public model families: what their `config.json` says in our words, and what they call our weights.

A family is configuration. Each file has `model_config(config)`, from a parsed `config.json` to our frozen dataclass,
and `weight_table(model)`, the names of its weights for import and export alike.
"""
