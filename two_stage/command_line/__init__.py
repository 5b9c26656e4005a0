"""Between the command line and a script's `main`: flags, recipes, launches, how a script ends, what is kept secret."""
