"""The built-in trained model: its recipe, weights and card."""
