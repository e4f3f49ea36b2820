"""The parts of `function_vector`: prompts of examples, effects of heads, what a vector does, steering."""
