"""Trainer, made exact: arguments, order of learning, losses, and what a step costs."""
