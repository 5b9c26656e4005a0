"""Between the command line and a script's `main`: flags and recipes, launches, and how a script ends."""
