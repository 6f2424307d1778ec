"""Classifier-free guidance of velocities, with BAGEL's order of terms and its renormalisation (arXiv 2505.14683)."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


@dataclasses.dataclass(frozen=True)
class Guidance:
    """How far a velocity is pushed away from what it would be without text, and without images.

    Attributes:
        text: scale against the prompt without its text; 1 or less switches it off.
        image: scale against the prompt without its images; 1 or less switches it off.
        interval: (low, high); only where low < t ≤ high is there any guidance.
        renorm: "global" keeps a guided velocity from growing longer than the conditional one, image by image;
            "none" leaves it.
        renorm_min: the factor of that is at least this, in [0, 1].
    """

    text: float = 1.0
    image: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)
    renorm: str = "global"
    renorm_min: float = 0.0

    def __post_init__(self):
        if self.renorm not in ("global", "none"):
            raise ValueError(f"renorm is {self.renorm!r}; it must be 'global' or 'none'")

    @property
    def always(self) -> bool:
        """Whether the interval leaves no step out."""
        return self.interval[0] <= 0.0 and self.interval[1] >= 1.0

    def covers(self, times: Float[Array, "*E"]) -> Bool[Array, "*E"]:
        """Where the interval wants guidance."""
        return (times > self.interval[0]) & (times <= self.interval[1])


UNGUIDED = Guidance()


def guide(
    velocity: Float[Array, "*E I C"],
    textless: Float[Array, "*E I C"] | None,
    imageless: Float[Array, "*E I C"] | None,
    guidance: Guidance,
) -> Float[Array, "*E I C"]:
    """Guided velocities: v ← u + scale · (v − u) for the text and then for the images, then the length.

    The last is v · clip(|v_conditional| / (|v| + 1e-8), renorm_min, 1). BAGEL takes the norm over all images that it
    samples at once; here it is that of each image, so that none depends on its neighbours.

    Args:
        velocity: of the whole prompt.
        textless: of the prompt without its text, or None.
        imageless: of the prompt without its images, or None.
        guidance: scales and renormalisation.
    """
    guided = velocity
    if textless is not None:
        guided = textless + guidance.text * (guided - textless)
    if imageless is not None:
        guided = imageless + guidance.image * (guided - imageless)
    if guidance.renorm == "global":
        ratio = _length(velocity) / (_length(guided) + 1e-8)
        guided = guided * jnp.clip(ratio, guidance.renorm_min, 1.0)
    return guided


def _length(velocity: Float[Array, "*E I C"]) -> Float[Array, "*E 1 1"]:
    # A fresh head says 0 everywhere, where a plain norm has no gradient.
    return jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(velocity), axis=(-2, -1), keepdims=True), 1e-16))
