"""What a run leaves for people: predictions, label scores, pictures, the model card, the page; several seeds."""
