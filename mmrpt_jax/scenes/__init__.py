"""The embedded world: scenes of coloured shapes, and everything that can be said about them.

Scenes, images, captions, questions and prompts are pure functions of (seed, index). Named worlds differ in how
strongly a shape predicts its colour (`WORLDS`: biased, unbiased, flipped, held_out); `read` turns pixels back
into a scene, `strict` and `soft` grade it by a prompt's clauses. NumPy only.
"""

from mmrpt_jax.scenes.caption_clauses import clauses_of_caption as clauses_of_caption
from mmrpt_jax.scenes.captions import BOILERPLATE as BOILERPLATE
from mmrpt_jax.scenes.captions import MAX_WORDS as MAX_WORDS
from mmrpt_jax.scenes.captions import AttributeSpan as AttributeSpan
from mmrpt_jax.scenes.captions import Caption as Caption
from mmrpt_jax.scenes.captions import Sentence as Sentence
from mmrpt_jax.scenes.captions import describe as describe
from mmrpt_jax.scenes.clauses import TAGS as TAGS
from mmrpt_jax.scenes.clauses import Clause as Clause
from mmrpt_jax.scenes.clauses import Clauses as Clauses
from mmrpt_jax.scenes.clauses import ScenePrompt as ScenePrompt
from mmrpt_jax.scenes.clauses import metadata as metadata
from mmrpt_jax.scenes.clauses import soft as soft
from mmrpt_jax.scenes.clauses import stands as stands
from mmrpt_jax.scenes.clauses import strict as strict
from mmrpt_jax.scenes.geneval import Agreement as Agreement
from mmrpt_jax.scenes.geneval import TagScores as TagScores
from mmrpt_jax.scenes.geneval import caption_accuracy as caption_accuracy
from mmrpt_jax.scenes.geneval import clause_agreement as clause_agreement
from mmrpt_jax.scenes.geneval import clauses_of_scene as clauses_of_scene
from mmrpt_jax.scenes.geneval import diversity as diversity
from mmrpt_jax.scenes.geneval import geneval_scores as geneval_scores
from mmrpt_jax.scenes.geneval import layout as layout
from mmrpt_jax.scenes.prompts import COUNTS as COUNTS
from mmrpt_jax.scenes.prompts import prompt_at as prompt_at
from mmrpt_jax.scenes.prompts import prompts_of_scene as prompts_of_scene
from mmrpt_jax.scenes.prompts import scene_for as scene_for
from mmrpt_jax.scenes.prompts import tags_of as tags_of
from mmrpt_jax.scenes.questions import BLANK as BLANK
from mmrpt_jax.scenes.questions import KINDS as KINDS
from mmrpt_jax.scenes.questions import Question as Question
from mmrpt_jax.scenes.questions import ask as ask
from mmrpt_jax.scenes.questions import question_at as question_at
from mmrpt_jax.scenes.render import BACKGROUND as BACKGROUND
from mmrpt_jax.scenes.render import PALETTE as PALETTE
from mmrpt_jax.scenes.render import render as render
from mmrpt_jax.scenes.splits import SPLITS as SPLITS
from mmrpt_jax.scenes.splits import split_seed as split_seed
from mmrpt_jax.scenes.verdicts import AS_ASKED as AS_ASKED
from mmrpt_jax.scenes.verdicts import Verdict as Verdict
from mmrpt_jax.scenes.verdicts import grade_image as grade_image
from mmrpt_jax.scenes.verdicts import grade_objects as grade_objects
from mmrpt_jax.scenes.verifier import Reading as Reading
from mmrpt_jax.scenes.verifier import examine as examine
from mmrpt_jax.scenes.verifier import read as read
from mmrpt_jax.scenes.world import COLORS as COLORS
from mmrpt_jax.scenes.world import HELD_OUT as HELD_OUT
from mmrpt_jax.scenes.world import IMAGE_SIZE as IMAGE_SIZE
from mmrpt_jax.scenes.world import MAX_OBJECTS as MAX_OBJECTS
from mmrpt_jax.scenes.world import SHAPES as SHAPES
from mmrpt_jax.scenes.world import SIZES as SIZES
from mmrpt_jax.scenes.world import WORLDS as WORLDS
from mmrpt_jax.scenes.world import Object as Object
from mmrpt_jax.scenes.world import Scene as Scene
from mmrpt_jax.scenes.world import World as World
from mmrpt_jax.scenes.world import color_probabilities as color_probabilities
from mmrpt_jax.scenes.world import sample_scene as sample_scene
from mmrpt_jax.scenes.world import with_bias as with_bias
