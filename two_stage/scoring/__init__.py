"""What a model is worth: scores, their intervals, calibration, and tags decoded."""
