"""The larger subcommands of `fastbp`, each in a module of its own."""
