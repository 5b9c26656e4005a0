"""A run's folder: begun, gone on with, handed to stage two, locked, uploaded."""
