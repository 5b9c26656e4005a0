"""What a run leaves for people: predictions, label scores, pictures, the model card, the page to try models on."""
