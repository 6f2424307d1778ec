"""Does it understand the image? Cloze questions, and hidden spans with the right, a swapped and no image."""
