"""Floor 1: the configuration, from YAML to frozen classes, with every error at once and in its place."""
