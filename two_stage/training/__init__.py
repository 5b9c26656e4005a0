"""Trainer, made exact: arguments, batches, order of learning, losses, and what a step costs."""
