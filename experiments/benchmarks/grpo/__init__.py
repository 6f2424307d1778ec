"""The sides of `grpo_step`: one piece of work, and how we and our peers do it."""
