"""Prompts with answers, counterfactual pairs and token roles."""
