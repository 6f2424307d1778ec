"""What does the model understand, and what can it draw?

Cloze questions, and hidden spans with the right, a swapped and no image; drawings read by the pixel verifier and by the
model itself; how states and gradients are spread.
"""
