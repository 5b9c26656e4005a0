"""What every script of the two-stage recipe would otherwise repeat: a folder a subject, a module an idea."""
