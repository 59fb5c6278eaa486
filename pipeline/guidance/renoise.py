"""CFG++ (arXiv 2406.08070): a step that goes to the guided x0 and takes the noise of another prediction.

With a and b of the noise path, a deterministic step of first order from x to the next level a', b' is

    x' = a' x0(guided) + b' e(guided),

and CFG++ takes e(empty) in place of e(guided) (algorithm 2 of the paper, and the authors' code for DDIM). Its
lambda is the scale, in [0, 1] as a rule, since the noise no longer repeats what guidance asked for: the authors
compare it with scales of classifier-free guidance in [1, 12.5]. Euler's step is the same along both noise paths.

With one term and no post-process it is classifier-free guidance at the scale lambda / (1 - sigma' / sigma): the same
direction, taken farther where steps are short.

Other solvers mix the predictions of several evaluations, or draw their own noise; CFG++ has no single form there.
"""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.settings import Name, Settings


class CFGPlusPlus(Settings):
    """Re-noise along the reference `along` of one of the terms, by a `share` of the noise.

    It acts after all post-processes, which have made the guided prediction. A term's schedule weighs the share too.
    With share 0 the step is the solver's own, bit for bit. With share 1 a scale of 1 is not the plain conditional, for
    the noise is still the reference's.
    """

    name: Literal["cfg_plus_plus"]
    along: Name = "empty"
    share: Annotated[float, Field(ge=0, le=1)] = 1.0
